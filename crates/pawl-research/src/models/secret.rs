//! A key, and the certainty that it is written nowhere.

use std::fmt;

/// A key of a service. It has no `Display`, its `Debug` hides it, and what a service sends back is searched for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What stands where a key was.
const HIDDEN: &str = "[key]";

impl Secret {
    /// A key without the spaces and line breaks that files put around it; `None` when nothing is left.
    pub fn new(key: &str) -> Option<Secret> {
        let key = key.trim();
        (!key.is_empty()).then(|| Secret(key.to_string()))
    }

    /// For the header of a request, and nothing else.
    pub(super) fn header(&self) -> &str {
        &self.0
    }

    /// The text with the key taken out, also as base64 and hex.
    pub(super) fn hide(&self, text: String) -> String {
        // A key of a few letters would blank half a dictionary, and protects nothing.
        if self.0.len() < 8 {
            return text;
        }
        let hex: String = self.0.bytes().map(|byte| format!("{byte:02x}")).collect();
        let base64 = base64(self.0.as_bytes());
        let forms =
            [self.0.as_str(), base64.trim_end_matches('='), &hex, &hex.to_uppercase()].map(str::to_string);
        forms.iter().fold(text, |text, form| {
            if text.contains(form.as_str()) { text.replace(form.as_str(), HIDDEN) } else { text }
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            match digit <= group.len() {
                true => out.push(char::from(DIGITS[(word >> (18 - 6 * digit) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hidden_in_every_form() {
        assert_eq!(base64(b"light work."), "bGlnaHQgd29yay4=");
        assert_eq!(base64(b"light wor"), "bGlnaHQgd29y");
        let key = Secret::new(" sk-canary-0123456789\n").unwrap();
        let said =
            "sk-canary-0123456789 c2stY2FuYXJ5LTAxMjM0NTY3ODk= 736b2d63616e6172792d30313233343536373839";
        assert_eq!(key.hide(said.to_string()), "[key] [key]= [key]");
        assert_eq!(format!("{key:?}"), "[key]");
        assert_eq!(Secret::new(" \n"), None);
    }
}
