"""The official SDKs of Anthropic and OpenAI against the scripted server: each line printed is a check that held."""

import sys

import anthropic
import openai

address = sys.argv[1]
effects = {"type": "object", "properties": {"category": {"type": "string"}}}


def hold(what, condition):
    if not condition:
        sys.exit(f"does not hold: {what}")
    print(f"holds: {what}")


def messages_api():
    client = anthropic.Anthropic(api_key="test", base_url=f"http://{address}", max_retries=3)
    tools = [{"name": "effects", "description": "what was learnt", "input_schema": effects}]
    ask = [{"role": "user", "content": "What is known?"}]
    common = {"model": "claude-opus-4-5", "max_tokens": 4000, "tools": tools}
    first = client.messages.create(messages=ask, **common)
    call = next(block for block in first.content if block.type == "tool_use")
    hold("messages: a whole answer", first.stop_reason == "tool_use" and call.input == {"category": "data"})
    thinking = {"type": "enabled", "budget_tokens": 2000}
    system = [{"type": "text", "text": "told", "cache_control": {"type": "ephemeral"}}]
    with client.messages.stream(messages=ask, thinking=thinking, system=system, **common) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    call = next(block for block in final.content if block.type == "tool_use")
    hold("messages: a streamed answer", text == "I look." and call.input == {"category": "data"})
    hold("messages: thought is signed", final.content[0].type == "thinking" and final.content[0].signature == "signed")
    hold("messages: tokens are counted", final.usage.input_tokens > 0 and final.usage.output_tokens == 50)
    result = [{"type": "tool_result", "tool_use_id": call.id, "content": "nothing yet"}]
    both = ask + [{"role": "assistant", "content": final.content}, {"role": "user", "content": result}]
    last = client.messages.create(messages=both, thinking=thinking, **common)
    hold("messages: results of tools go back", last.stop_reason == "end_turn" and "nothing to add" in last.content[-1].text)
    count = client.messages.count_tokens(model="claude-opus-4-5", messages=ask)
    hold("messages: tokens are counted before", count.input_tokens > 0)
    again = client.messages.create(messages=[{"role": "user", "content": "fail first"}], **common)
    hold("messages: an overloaded server is asked again", again.stop_reason == "tool_use")
    refusal = client.messages.create(messages=[{"role": "user", "content": "refuse"}], **common)
    hold("messages: a refusal", refusal.stop_reason == "refusal")
    try:
        client.messages.create(messages=[{"role": "user", "content": "wrong"}], **common)
        hold("messages: a wrong key is an error", False)
    except anthropic.AuthenticationError as error:
        hold("messages: a wrong key is an error", "authentication_error" in str(error))
    try:
        client.messages.create(messages=both[:2] + [{"role": "user", "content": "and?"}], **common)
        hold("messages: a call without result is refused", False)
    except anthropic.BadRequestError:
        hold("messages: a call without result is refused", True)


def chat_completions():
    client = openai.OpenAI(api_key="test", base_url=f"http://{address}/v1", max_retries=3)
    tools = [{"type": "function", "function": {"name": "effects", "parameters": effects}}]
    ask = [{"role": "system", "content": "told"}, {"role": "user", "content": "What is known?"}]
    common = {"model": "m", "tools": tools}
    first = client.chat.completions.create(messages=ask, **common)
    choice = first.choices[0]
    call = choice.message.tool_calls[0]
    hold("chat: a call", choice.finish_reason == "tool_calls" and call.function.arguments == '{"category":"data"}')
    hold("chat: tokens are counted", first.usage.total_tokens == first.usage.prompt_tokens + 50)
    both = ask + [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "nothing yet"}]
    last = client.chat.completions.create(messages=both, **common)
    hold("chat: results of tools go back", "nothing to add" in last.choices[0].message.content)
    chunks = list(client.chat.completions.create(messages=ask, stream=True, **common))
    name = next(chunk.choices[0].delta.tool_calls[0].function.name for chunk in chunks if chunk.choices[0].delta.tool_calls)
    hold("chat: a streamed call", name == "effects" and chunks[-1].choices[0].finish_reason == "tool_calls")
    try:
        client.chat.completions.create(messages=[{"role": "user", "content": "wrong"}], **common)
        hold("chat: a wrong key is an error", False)
    except openai.AuthenticationError:
        hold("chat: a wrong key is an error", True)


messages_api()
chat_completions()
