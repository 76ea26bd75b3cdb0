# Runs a model's program inside the sandbox. The job comes on descriptor 0, a socket, and the values go back on it.
# What is right is not known here: there is nothing to steal, and no verdict to forge.
import json, os


def run(job):
    space = {"__name__": "program"}
    try:
        exec(compile(job["program"], "program", "exec"), space)
    except BaseException as error:
        return [{"fault": type(error).__name__} for _ in job["calls"]]
    values = []
    for call in job["calls"]:
        try:
            values.append({"value": json.loads(json.dumps(eval(call, space)))})
        except BaseException as error:
            values.append({"fault": type(error).__name__})
    return values


def serve():
    channel = os.dup(0)
    parts = []
    while True:
        part = os.read(channel, 65536)
        if not part:
            break
        parts.append(part)
    job = json.loads(b"".join(parts))
    os.close(0)
    reply = json.dumps({"nonce": job["nonce"], "values": run(job)}).encode()
    while reply:
        reply = reply[os.write(channel, reply):]
    os._exit(0)


serve()
