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
    /// The tokenizer comes from elsewhere and names no format that is known here.
    #[error("this model has no chat format that is known here: its tokenizer has the tokens of none")]
    NoFormat,
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

/// How a model is told who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatFormat {
    /// Ours, by the special tokens that every tokenizer of pawl has.
    Own,
    /// `<|im_start|>role`, the text, `<|im_end|>`, as imported models know it.
    ChatMl {
        /// What its template lets the system say where no message does.
        system: Option<String>,
    },
}

/// The whole conversation, in the format of the tokenizer.
pub fn render(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Rendered, ChatError> {
    ChatFormat::of(tokenizer)?.render(tokenizer, messages)
}

/// The conversation so far, up to where the assistant begins to speak.
pub fn ask(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
    ChatFormat::of(tokenizer)?.ask(tokenizer, messages)
}

impl ChatFormat {
    /// The format that the special tokens and the template of a tokenizer name.
    pub fn of(tokenizer: &Tokenizer) -> Result<ChatFormat, ChatError> {
        let has = |name: &str| tokenizer.special(name).is_some();
        if ["<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>"]
            .iter()
            .all(|it| has(it))
        {
            return Ok(ChatFormat::Own);
        }
        let template = tokenizer.roles().chat_template.as_deref().unwrap_or_default();
        match template.contains(IM_START) && has(IM_START) && has(IM_END) {
            true => Ok(ChatFormat::ChatMl { system: default_system(template) }),
            false => Err(ChatError::NoFormat),
        }
    }

    /// Tokens of the whole conversation, and which of them are taught.
    pub fn render(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Rendered, ChatError> {
        check_order(messages).map_err(ChatError::Order)?;
        Ok(self.written(tokenizer, messages))
    }

    /// The conversation so far, up to where the assistant begins to speak.
    pub fn ask(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
        if messages.last().is_none_or(|last| last.role != Role::User) {
            return Err(ChatError::Order("an answer follows a user message".to_string()));
        }
        let mut tokens = self.render(tokenizer, messages)?.tokens;
        match self {
            ChatFormat::Own => tokens.push(special(tokenizer, "<|assistant_start|>")),
            ChatFormat::ChatMl { .. } => {
                tokens.push(special(tokenizer, IM_START));
                tokens.extend(tokenizer.encode("assistant\n"));
            }
        }
        Ok(tokens)
    }

    /// Tokens that end an answer.
    pub fn ends(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match self {
            // Nothing that only a template writes is part of what is said.
            ChatFormat::Own => tokenizer.specials().map(|(_, id)| id).collect(),
            ChatFormat::ChatMl { .. } => {
                let own = tokenizer.special(IM_END).into_iter();
                own.chain(tokenizer.roles().ends.iter().copied()).collect()
            }
        }
    }

    fn written(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Rendered {
        let mut rendered = Rendered { tokens: Vec::new(), taught: Vec::new() };
        let mut push = |tokens: &[u32], taught: bool| {
            rendered.tokens.extend_from_slice(tokens);
            rendered.taught.resize(rendered.tokens.len(), taught);
        };
        match self {
            ChatFormat::Own => {
                push(&[tokenizer.bos()], false);
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
            }
            ChatFormat::ChatMl { system } => {
                let mut say = |role: &str, content: &str, taught: bool| {
                    push(&[special(tokenizer, IM_START)], false);
                    match taught {
                        // As the answer is drawn: after the line that announces it.
                        true => {
                            push(&tokenizer.encode(&format!("{role}\n")), false);
                            push(&tokenizer.encode(content), true);
                        }
                        false => push(&tokenizer.encode(&format!("{role}\n{content}")), false),
                    }
                    push(&[special(tokenizer, IM_END)], taught);
                    push(&tokenizer.encode("\n"), false);
                };
                let is_set = messages.first().is_some_and(|message| message.role == Role::System);
                if let Some(system) = system.as_ref().filter(|_| !is_set) {
                    say("system", system, false);
                }
                for message in messages {
                    say(message.role.name(), &message.content, message.role == Role::Assistant);
                }
            }
        }
        rendered
    }
}

const IM_START: &str = "<|im_start|>";
const IM_END: &str = "<|im_end|>";

fn special(tokenizer: &Tokenizer, name: &str) -> u32 {
    tokenizer.special(name).expect("the format was found by its tokens")
}

/// The system message that a ChatML template writes by itself.
fn default_system(template: &str) -> Option<String> {
    let (_, after) =
        template.split_once("<|im_start|>system\\n").or(template.split_once("<|im_start|>system\n"))?;
    let (text, _) = after.split_once(IM_END)?;
    // A variable instead of words is a place for a message, not one.
    (!text.contains(['{', '\'', '+'])).then(|| text.to_string())
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
