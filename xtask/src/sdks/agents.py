"""The official MCP client as the researcher of a real lab, in both eras of the protocol: each line printed is a check
that held."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

pawl, work = sys.argv[1], Path(sys.argv[2])
TOKEN = "a token made for this check alone"
COMPOSITION = """def bigram_values(x, tokens, name):
    ids = (shift(tokens, 1) * 40503 + tokens * 30011) % 512
    return x + gather(param(name + ".bigram_embed", (512, WIDTH), normal(embed_std)), ids)

def block(x, tokens, i):
    x = bigram_values(x, tokens, "blocks.%d" % i)
"""


def hold(what, condition, shown=""):
    if not condition:
        sys.exit(f"does not hold: {what} {shown}")
    print(f"holds: {what}", flush=True)


def prepare():
    """A lab of sums, and the plain starting point shrunk until a trial takes a tenth of a second."""
    work.mkdir(parents=True)
    (work / "words.txt").write_text("".join(f"{n % 61} times {n % 37} is {n % 61 * (n % 37)}\n" for n in range(4000)))
    subprocess.run([pawl, "data", "add", "words", "words.txt"], cwd=work, check=True, stdout=subprocess.DEVNULL)
    tiny = (Path(__file__).parents[3] / "recipes/tiny.star").read_text()
    (work / "small.star").write_text(tiny.replace('"tokens_per_step", [4096, 1024,', '"tokens_per_step", [1024, 4096,'))


@contextlib.contextmanager
def running(*args):
    """A command that is asked to end when it is not needed any more."""
    process = subprocess.Popen([pawl, *args], cwd=work, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def change(width):
    return {"edits": [{"find": "def block(x, tokens, i):\n", "replace": COMPOSITION.replace("WIDTH", width)}]}


def knob(value, hypothesis):
    return {"settings": {"matrix_lr": value}, "hypothesis": hypothesis, "gain_bpb": 0.01, "probability": 0.2}


async def call(client, tool, arguments=None):
    result = await client.call_tool(tool, arguments or {})
    return result.is_error, result.content[0].text


async def judged(client, draft, longest=300):
    begun = time.monotonic()
    while time.monotonic() - begun < longest:
        asked = time.monotonic()
        wrong, text = await call(client, "wait_for_result", {"draft": draft})
        if time.monotonic() - asked > 26 or wrong:
            sys.exit(f"a call took {time.monotonic() - asked:.0f} s: {text}")
        told = json.loads(text)
        if told["state"] in ("judged", "returned"):
            return told
    sys.exit(f"draft {draft} was not judged in {longest} s: {text}")


async def session(era, client, proposal, wrong_one):
    """All that a client of one era and transport does; comes back with the draft it filed."""
    tools = {tool.name for tool in (await client.list_tools()).tools}
    hold(f"{era}: at most fifteen tools, propose among them", len(tools) <= 15 and {"propose", "wait_for_result"} <= tools)
    hold(f"{era}: no tool promotes, spends or seals", not any(word in name for name in tools for word in ("promote", "seed", "seal", "run", "delete")))
    resources = {str(it.uri) for it in (await client.list_resources()).resources}
    hold(f"{era}: resources", resources == {"pawl://campaign/state", "pawl://recipe/reference"})
    reference = (await client.read_resource("pawl://recipe/reference")).contents[0].text
    hold(f"{era}: the reference of the language", "attend(q, k, v" in reference)
    prompts = {it.name for it in (await client.list_prompts()).prompts}
    hold(f"{era}: prompts", prompts == {"research", "explain"})
    opening = (await client.get_prompt("research")).messages[0].content.text
    hold(f"{era}: a session begins with what counts", "How a change is judged" in opening and "wait_for_result" in opening)
    wrong, text = await call(client, "check_recipe", change("width + 1"))
    hold(f"{era}: a wrong recipe comes back with file and line", wrong and ".star:" in text, text)
    wrong, text = await call(client, "check_recipe", change("width"))
    hold(f"{era}: a right one with its price", not wrong and "flops_per_step" in text, text)
    wrong, text = await call(client, "propose", wrong_one)
    hold(f"{era}: what does not compile is not filed", wrong and "does not compile" in text, text)
    wrong, text = await call(client, "propose", proposal)
    hold(f"{era}: a proposal is filed", not wrong and json.loads(text)["draft"] >= 1, text)
    wrong, _ = await call(client, "read_library", {"file": "../../../etc/passwd"})
    hold(f"{era}: no file by name", wrong)
    try:
        await client.call_tool("promote", {"number": 1})
        hold(f"{era}: an unknown tool is refused", False)
    except MCPError:
        hold(f"{era}: an unknown tool is refused", True)
    return json.loads(text)["draft"]


def over_http(url, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return streamable_http_client(url, http_client=httpx2.AsyncClient(headers=headers, timeout=60))


async def refused(what, url, headers):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    async with httpx2.AsyncClient() as plain:
        accept = {"Accept": "application/json, text/event-stream"}
        answer = await plain.post(url, json=body, headers={**accept, **headers})
    hold(f"refused: {what}", answer.status_code in (401, 403), answer.status_code)


async def main():
    prepare()
    campaign = ["research", "--recipe", "small.star", "--data", "words", "--depth", "1", "--flops", "7e9", "--minutes", "30",
                "--researcher", "mcp", "--workers", "2"]
    (work / "token").write_text(TOKEN)
    composed = {**change("width"), "category": "architecture", "gain_bpb": 0.05, "probability": 0.3,
                "hypothesis": "Values that know the last two tokens save attention a step."}
    broken = {**composed, **change("width + 1")}
    server = StdioServerParameters(command=pawl, args=["mcp"], cwd=work)
    with running(*campaign) as research, running("mcp", "--http", "--bind", "127.0.0.1:0", "--token-file", "token") as http:
        url = "http://" + http.stderr.readline().split("http://")[1].split(";")[0].strip()
        async with Client(server, mode="legacy") as client:
            hold("stdio, handshake: negotiated", client.protocol_version < "2026", client.protocol_version)
            while (await call(client, "campaign_state"))[0]:
                await asyncio.sleep(0.3)
            first = await session("stdio, handshake", client, composed, broken)
            async with Client(over_http(url, TOKEN), mode="2026-07-28") as other:
                second = await session("HTTP, 2026-07-28", other, knob(0.0051, "Faster."), broken)
                told = await judged(client, first)
                result = told["result"]
                hold("stdio, handshake: tried and judged", told["state"] == "judged" and len(result["pairs"]) >= 1, told)
                print(f"       {result['verdict']}: {result['reason'] or ''} {len(result['pairs'])} pairs")
                told = await judged(other, second)
                hold("HTTP, 2026-07-28: tried and judged", told["state"] == "judged", told)
        async with Client(server) as client:
            hold("stdio, probed: without handshake", client.protocol_version == "2026-07-28", client.protocol_version)
            third = await session("stdio, 2026-07-28", client, knob(0.0024, "A little faster."), broken)
            async with Client(over_http(url, TOKEN), mode="legacy") as other:
                fourth = await session("HTTP, handshake", other, knob(0.011, "Faster still."), broken)
                for era, draft in (("stdio, 2026-07-28", third), ("HTTP, handshake", fourth)):
                    told = await judged(other, draft)
                    hold(f"{era}: tried and judged", told["state"] == "judged", told)
        token = {"Authorization": f"Bearer {TOKEN}"}
        await refused("no token", url, {})
        await refused("another token", url, {"Authorization": "Bearer " + TOKEN[:-1] + "x"})
        await refused("a foreign Origin", url, {**token, "Origin": "https://attacker.example"})
        await refused("a foreign Host", url, {**token, "Host": "attacker.example"})
        try:
            async with Client(over_http(url, None), mode="legacy") as client:
                await client.list_tools()
            hold("refused: the client without a token", False)
        except Exception:
            hold("refused: the client without a token", True)
    verified = subprocess.run([pawl, "verify"], cwd=work, capture_output=True, text=True)
    hold("pawl verify finds nothing that differs", verified.returncode == 0, verified.stdout)
    proposals = [json.loads(path.read_text()) for path in sorted((work / "lab/campaign/proposals").glob("*.json"))]
    outside = [it for it in proposals if it["researcher"] == "mcp"]
    hold("four proposals are mcp's, by clients that say who they are", len(outside) == 4 and all(it["author"]["model"].startswith("client ") for it in outside))
    print("       " + ", ".join(it["author"]["model"] for it in outside))


asyncio.run(main())
