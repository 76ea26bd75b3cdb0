//! Bytes of tokens, as they come, become text: whole characters, and nothing from a stop string on.

/// Text under construction. What may be the beginning of a stop string, or of a character, waits.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    pending: Vec<u8>,
    stops: Vec<String>,
    stopped: bool,
}

impl TextStream {
    /// A text that ends before the first of `stops`; empty ones never occur.
    pub fn new(stops: Vec<String>) -> TextStream {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        TextStream { pending: Vec::new(), stops, stopped: false }
    }

    /// Adds the bytes of a token and gives the text that is certain now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.pending.extend_from_slice(bytes);
        if let Some(at) = self.stops.iter().filter_map(|stop| find(&self.pending, stop.as_bytes())).min() {
            self.stopped = true;
            self.pending.truncate(at);
            return self.take(at);
        }
        let held = self.stops.iter().map(|stop| begun(&self.pending, stop.as_bytes())).max().unwrap_or(0);
        let certain = self.pending.len() - held;
        self.take(complete(&self.pending[..certain]))
    }

    /// Whether a stop string has been met.
    pub fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// What waited, when no more is to come.
    pub fn finish(&mut self) -> String {
        self.take(self.pending.len())
    }

    fn take(&mut self, num: usize) -> String {
        String::from_utf8_lossy(&self.pending.drain(..num).collect::<Vec<u8>>()).into_owned()
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Bytes at the end of `bytes` that may be the beginning of `stop`.
fn begun(bytes: &[u8], stop: &[u8]) -> usize {
    let most = bytes.len().min(stop.len() - 1);
    (1..=most).rev().find(|num| bytes.ends_with(&stop[..*num])).unwrap_or(0)
}

/// Bytes up to the last character that may still be incomplete.
fn complete(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        // Without a length the error is an end too early; with one the bytes are no text and are shown as such.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(error) => {
            let bad = error.valid_up_to() + error.error_len().unwrap_or(1);
            bad + complete(&bytes[bad..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_waits_until_it_is_whole() {
        let snowman = "a\u{2603}".as_bytes();
        assert_eq!(complete(&snowman[..2]), 1);
        assert_eq!(complete(&snowman[..3]), 1);
        assert_eq!(complete(snowman), 4);
        assert_eq!(complete(&[b'a', 0xff, b'b']), 3);
        assert_eq!(complete(&[b'a', 0xff, 0xe2]), 2);
    }

    #[test]
    fn a_stop_string_across_tokens_ends_the_text_before_it() {
        let mut text = TextStream::new(vec!["\n\n".into(), "END".into(), String::new()]);
        assert_eq!(text.push(b"one\n"), "one");
        assert_eq!(text.push(b"two E"), "\ntwo ");
        assert_eq!(text.push(b"N"), "");
        assert_eq!(text.push(b"d EN"), "ENd ");
        assert_eq!((text.push(b"D more"), text.has_stopped()), (String::new(), true));
        assert_eq!((text.push(b"x"), text.finish()), (String::new(), String::new()));
        let mut text = TextStream::new(vec!["END".into()]);
        assert_eq!((text.push(b"E"), text.finish()), (String::new(), "E".into()));
    }
}
