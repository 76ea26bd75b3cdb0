//! Conversations as tokens: `<|bos|><|user_start|>..<|user_end|><|assistant_start|>..<|assistant_end|>`, the form of
//! nanochat. Every tokenizer of pawl has these tokens, so a base model needs no new ones. A system message stands at
//! the head of the first user message. What people write is encoded as text: it cannot forge a token.

use crate::Tokenizer;
use pawl_record::{Message, Role};
use std::path::PathBuf;

/// The same as a Jinja template, for programs that render chats themselves.
pub const CHAT_TEMPLATE: &str = "\
{%- set ns = namespace(system='') -%}
{{- '<|bos|>' -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- set ns.system = message['content'] + '\\n\\n' -%}
{%- elif message['role'] == 'user' -%}
{{- '<|user_start|>' + ns.system + message['content'] + '<|user_end|>' -}}
{%- set ns.system = '' -%}
{%- else -%}
{{- '<|assistant_start|>' + message['content'] + '<|assistant_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant_start|>' -}}
{%- endif -%}
";

/// A conversation cannot be read or rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not a conversation.
    #[error("{path}, line {line}: not a conversation")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// Where in the line and why.
        source: serde_json::Error,
    },
    /// A line is a conversation that cannot be taught.
    #[error("{path}, line {line}: {because}")]
    Turns {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        because: String,
    },
    /// The messages do not follow each other as a conversation does.
    #[error("{0}")]
    Order(String),
    /// Nothing to learn from.
    #[error(
        "{what} has no answer to learn from: {too_long} of {total} are cut off before one in rows of {row_len} tokens"
    )]
    Nothing {
        /// As the command named it.
        what: String,
        /// Conversations without a taught token left.
        too_long: usize,
        /// All.
        total: usize,
        /// Tokens of a row.
        row_len: usize,
    },
}

/// Tokens of a conversation, and which of them the assistant says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// From BOS on.
    pub tokens: Vec<u32>,
    /// For each token whether it is taught: what the assistant says, and the token that ends it.
    pub taught: Vec<bool>,
}

/// The whole conversation.
pub fn render(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Rendered, ChatError> {
    check_order(messages).map_err(ChatError::Order)?;
    let mut rendered = Rendered { tokens: vec![tokenizer.bos()], taught: vec![false] };
    let mut push = |tokens: &[u32], taught: bool| {
        rendered.tokens.extend_from_slice(tokens);
        rendered.taught.resize(rendered.tokens.len(), taught);
    };
    let mut system = None;
    for message in messages {
        match message.role {
            Role::System => system = Some(&message.content),
            Role::User => {
                let text = match system.take() {
                    Some(system) => tokenizer.encode(&format!("{system}\n\n{}", message.content)),
                    None => tokenizer.encode(&message.content),
                };
                push(&[special(tokenizer, "<|user_start|>")], false);
                push(&text, false);
                push(&[special(tokenizer, "<|user_end|>")], false);
            }
            Role::Assistant => {
                push(&[special(tokenizer, "<|assistant_start|>")], false);
                push(&tokenizer.encode(&message.content), true);
                push(&[special(tokenizer, "<|assistant_end|>")], true);
            }
        }
    }
    Ok(rendered)
}

/// The conversation so far, up to where the assistant begins to speak.
pub fn ask(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
    if messages.last().is_none_or(|last| last.role != Role::User) {
        return Err(ChatError::Order("an answer follows a user message".to_string()));
    }
    let mut tokens = render(tokenizer, messages)?.tokens;
    tokens.push(special(tokenizer, "<|assistant_start|>"));
    Ok(tokens)
}

fn special(tokenizer: &Tokenizer, name: &str) -> u32 {
    tokenizer.special(name).expect("every tokenizer has the tokens of chat")
}

/// User and assistant in turn, from the user on; a system message only before all.
pub(crate) fn check_order(messages: &[Message]) -> Result<(), String> {
    let spoken = messages.iter().skip_while(|message| message.role == Role::System);
    let num_system = messages.iter().take_while(|message| message.role == Role::System).count();
    if num_system > 1 {
        return Err("two system messages; one stands before the first user message".to_string());
    }
    if num_system == messages.len() {
        return Err("no user message".to_string());
    }
    for (at, (message, expected)) in spoken.zip([Role::User, Role::Assistant].into_iter().cycle()).enumerate()
    {
        if message.role != expected {
            return Err(format!(
                "message {} is of the {}, where the {} is to speak",
                num_system + at + 1,
                message.role.name(),
                expected.name()
            ));
        }
    }
    Ok(())
}
