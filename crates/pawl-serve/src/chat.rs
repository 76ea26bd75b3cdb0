//! Messages as tokens. The special tokens come from the format, never from what a message says.

use pawl_data::Tokenizer;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// How a model was taught to see a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatFormat {
    /// `<|im_start|>role`, the text, `<|im_end|>`; `system` stands first where no message does.
    ChatMl {
        /// What the template says of itself.
        system: Option<String>,
    },
    /// Ours: each text between the tokens that start and end its speaker.
    Own,
}

impl ChatFormat {
    /// The format of a model's tokenizer, if it has one that is known here.
    pub fn of(tokenizer: &Tokenizer) -> Option<ChatFormat> {
        let has = |name: &str| tokenizer.special(name).is_some();
        if has("<|user_start|>") && has("<|assistant_end|>") {
            return Some(ChatFormat::Own);
        }
        let template = tokenizer.roles().chat_template.as_deref()?;
        let is_chat_ml = template.contains("<|im_start|>") && has("<|im_start|>") && has("<|im_end|>");
        is_chat_ml.then(|| ChatFormat::ChatMl { system: default_system(template) })
    }

    /// The conversation, ready for the assistant's next answer; `None` for a role that is none.
    pub fn render(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Option<Vec<u32>> {
        let special = |name: &str| tokenizer.special(name).expect("the format was found by its tokens");
        let known = |message: &Message| ["system", "user", "assistant"].contains(&message.role.as_str());
        if !messages.iter().all(known) {
            return None;
        }
        let mut tokens = Vec::new();
        match self {
            ChatFormat::ChatMl { system } => {
                let (start, end) = (special("<|im_start|>"), special("<|im_end|>"));
                let mut say = |role: &str, content: &str| {
                    tokens.push(start);
                    tokens.extend(tokenizer.encode(&format!("{role}\n{content}")));
                    tokens.push(end);
                    tokens.extend(tokenizer.encode("\n"));
                };
                if let Some(system) =
                    system.as_ref().filter(|_| messages.first().is_none_or(|m| m.role != "system"))
                {
                    say("system", system);
                }
                messages.iter().for_each(|message| say(&message.role, &message.content));
                tokens.push(start);
                tokens.extend(tokenizer.encode("assistant\n"));
            }
            ChatFormat::Own => {
                tokens.push(tokenizer.bos());
                // What the system says is said by the user, before anything else.
                let mut first = String::new();
                for message in messages {
                    match message.role.as_str() {
                        "system" => first.push_str(&format!("{}\n\n", message.content)),
                        role => {
                            tokens.push(special(&format!("<|{role}_start|>")));
                            let text = format!("{}{}", std::mem::take(&mut first), message.content);
                            tokens.extend(tokenizer.encode(&text));
                            tokens.push(special(&format!("<|{role}_end|>")));
                        }
                    }
                }
                tokens.push(special("<|assistant_start|>"));
            }
        }
        Some(tokens)
    }

    /// Tokens that end an answer, beside those that end any text.
    pub fn ends(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let names: &[&str] = match self {
            ChatFormat::ChatMl { .. } => &["<|im_end|>"],
            ChatFormat::Own => &["<|assistant_end|>", "<|user_start|>"],
        };
        let own = names.iter().filter_map(|name| tokenizer.special(name));
        own.chain(tokenizer.roles().ends.iter().copied()).collect()
    }
}

/// The system message that a ChatML template writes by itself.
fn default_system(template: &str) -> Option<String> {
    let (_, after) =
        template.split_once("<|im_start|>system\\n").or(template.split_once("<|im_start|>system\n"))?;
    let (text, _) = after.split_once("<|im_end|>")?;
    // A variable instead of words is a place for a message, not one.
    (!text.contains(['{', '\'', '+'])).then(|| text.to_string())
}
