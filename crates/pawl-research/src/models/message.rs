//! A conversation with tools, as no provider writes it: what is asked, what comes back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The lab.
    User,
    /// The model.
    Assistant,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// A block of thought, to be handed back as it came: the provider signs it.
    Thought {
        /// As it came.
        block: Value,
    },
    /// The model calls a tool.
    Call {
        /// Keys the result.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments: an object, or text that should have been one.
        arguments: Value,
    },
    /// What a call gave.
    Result {
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
        /// The result.
        text: String,
        /// Whether the call was wrong.
        refused: bool,
    },
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What.
    pub parts: Vec<Part>,
}

impl Message {
    /// A text of the lab.
    pub fn user(text: impl Into<String>) -> Message {
        Message { role: Role::User, parts: vec![Part::Text { text: text.into() }] }
    }
}

/// What is sent: everything so far.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The stable prefix.
    pub system: &'a str,
    /// The conversation.
    pub messages: &'a [Message],
    /// Most tokens of the answer, thought included.
    pub max_tokens: u64,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It is complete.
    End,
    /// It waits for results of tools.
    Tools,
    /// It was cut at the most tokens.
    Length,
    /// The provider or the model declined.
    Refusal,
    /// As the provider calls it.
    Other(String),
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Sent, neither read from nor written to a cache.
    pub input: u64,
    /// Sent and written to a cache.
    pub cache_write: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Answered.
    pub output: u64,
    /// Whether the provider said so; otherwise worked out from sizes.
    pub known: bool,
}

impl Usage {
    /// All tokens.
    pub fn total(&self) -> u64 {
        self.sent().saturating_add(self.output)
    }

    /// All tokens sent.
    pub fn sent(&self) -> u64 {
        self.input.saturating_add(self.cache_write).saturating_add(self.cache_read)
    }
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The pieces, in order.
    pub parts: Vec<Part>,
    /// Why it ended.
    pub stop: Stop,
    /// The model that answered, as it names itself; empty when it does not.
    pub model: String,
    /// Tokens.
    pub usage: Usage,
}

impl Reply {
    /// What is left when nothing that was said may be kept.
    pub fn without_parts(&self) -> Reply {
        Reply { parts: Vec::new(), model: String::new(), ..self.clone() }
    }
}
