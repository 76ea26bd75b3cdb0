//! The splitter, learning merges, encoding, `tokenizer.json`.

use pawl_data::{DataError, MIN_VOCAB_SIZE, SPECIALS, Tokenizer, words};
use proptest::prelude::*;

fn check_words(text: &str, expected: &[&str]) {
    assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text:?}");
}

#[test]
fn words_are_cut_as_the_pattern_says() {
    check_words("Hello world", &["Hello", " world"]);
    check_words("don't WE'LL 's'x", &["don", "'t", " WE", "'LL", " '", "s", "'x"]);
    check_words("in 2026, 7e12", &["in", " ", "20", "26", ",", " ", "7", "e", "12"]);
    check_words("a  b", &["a", " ", " b"]);
    check_words("a   \n  b", &["a", "   \n", " ", " b"]);
    check_words("x\n\n\n    let y", &["x", "\n\n\n", "   ", " let", " y"]);
    check_words("f(x) != y;\n\n", &["f", "(x", ")", " !=", " y", ";\n\n"]);
    check_words("end   ", &["end", "   "]);
    check_words("\t\tend", &["\t", "\tend"]);
    check_words("a\u{a0}b \u{3000}", &["a", "\u{a0}b", " \u{3000}"]);
    check_words("हिन्दी में", &["हिन", "्दी", " में"]);
    check_words("中文123", &["中文", "12", "3"]);
    check_words("", &[]);
}

#[test]
fn merges_are_learnt_by_count_then_by_the_smaller_pair() {
    // One word "abab" x 3 and one "ab" x 1: (a, b) occurs 7 times, then (ab, ab) 3 times.
    let documents = ["abab", "abab", "abab", "ab"].map(String::from);
    let tokenizer = Tokenizer::train(&documents, MIN_VOCAB_SIZE + 2, 1).unwrap();
    assert_eq!(tokenizer.num_merges(), 2);
    assert_eq!(tokenizer.encode("ababab"), [257, 256]);
    assert_eq!(tokenizer.token_bytes()[256..258], [2, 4]);
    // Both pairs of "xyz" occur twice: the one with the smaller ids wins.
    let tokenizer = Tokenizer::train(&["xyz", "xyz"].map(String::from), MIN_VOCAB_SIZE + 1, 1).unwrap();
    assert_eq!(tokenizer.encode("xyz"), [256, u32::from(b'z')]);
}

#[test]
fn overlapping_pairs_are_merged_from_the_left() {
    let documents = ["aaaaa", "aaaaa"].map(String::from);
    let tokenizer = Tokenizer::train(&documents, MIN_VOCAB_SIZE + 1, 1).unwrap();
    assert_eq!(tokenizer.encode("aaaaa"), [256, 256, u32::from(b'a')]);
    // Now (aa, aa) and (aa, a) occur once in each word, and a has the smaller id than aa.
    let tokenizer = Tokenizer::train(&documents, MIN_VOCAB_SIZE + 2, 1).unwrap();
    assert_eq!(tokenizer.encode("aaaaa"), [256, 257]);
}

#[test]
fn merges_do_not_depend_on_the_number_of_threads() {
    let documents: Vec<String> = (0..40).map(|seed| crate::babble(seed, 300)).collect();
    let one = Tokenizer::train(&documents, 400, 1).unwrap().to_json();
    for threads in [2, 3, 7] {
        assert_eq!(Tokenizer::train(&documents, 400, threads).unwrap().to_json(), one, "{threads} threads");
    }
}

#[test]
fn ids_that_nothing_was_learnt_for_stay_unused() {
    let tokenizer = Tokenizer::train(&["abc".to_owned()], 1000, 1).unwrap();
    assert_eq!((tokenizer.num_merges(), tokenizer.vocab_size(), tokenizer.bos()), (0, 1000, 991));
    assert_eq!(tokenizer.token_bytes()[256..], [0; 744]);
    assert_eq!(tokenizer.decode_bytes(&[500]), b"");
}

#[test]
fn a_vocabulary_without_room_for_bytes_and_specials_is_refused() {
    for asked in [0, 1, 264, usize::MAX] {
        let error = Tokenizer::train(&[], asked, 1).unwrap_err();
        assert!(matches!(error, DataError::VocabSize { asked: a } if a == asked), "{error}");
    }
    assert!(Tokenizer::train(&[], 265, 1).is_ok());
}

#[test]
fn names_of_specials_in_text_are_text() {
    let tokenizer = Tokenizer::train(&[], 265, 1).unwrap();
    for name in SPECIALS {
        let tokens = tokenizer.encode(name);
        assert!(tokens.iter().all(|&token| token < 256), "{name} gave {tokens:?}");
        let special = tokenizer.special(name).unwrap();
        assert_eq!(tokenizer.decode(&[special]), name);
        assert_eq!(tokenizer.token_bytes()[special as usize], 0);
    }
    assert_eq!(tokenizer.special("<|bos|>"), Some(256));
    assert_eq!(tokenizer.special("bos"), None);
}

#[test]
fn a_saved_tokenizer_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let documents: Vec<String> =
        (0..10).map(|seed| format!("{} ёж 中文 \u{ad}\u{7f}", crate::babble(seed, 200))).collect();
    let tokenizer = Tokenizer::train(&documents, 380, 2).unwrap();
    tokenizer.save(&path).unwrap();
    let read = Tokenizer::load(&path).unwrap();
    assert_eq!(read.hash(), tokenizer.hash());
    assert_eq!(read.encode(&documents[3]), tokenizer.encode(&documents[3]));
    assert_eq!(read.token_bytes(), tokenizer.token_bytes());
}

#[test]
fn a_tokenizer_of_another_form_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let own = Tokenizer::train(&[crate::babble(1, 500)], 280, 1).unwrap().to_json();
    let other_pattern = own.replace("{1,2}", "{1,3}");
    let swapped = own.replacen("257", "258", 1);
    let cut = own[..own.len() / 2].to_owned();
    for text in [other_pattern, swapped, cut, "{}".to_owned(), String::new()] {
        std::fs::write(&path, &text).unwrap();
        let error = Tokenizer::load(&path).unwrap_err();
        assert!(matches!(error, DataError::Tokenizer { .. }), "{error}");
        assert!(error.to_string().contains("tokenizer.json") && error.hint().is_some());
    }
}

/// The definition: every merge in the order it was learnt, over the whole word.
fn encode_plainly(tokenizer: &Tokenizer, merges: &[(u32, u32)], text: &str) -> Vec<u32> {
    let mut all = Vec::new();
    for word in words(text) {
        let mut tokens: Vec<u32> = word.bytes().map(u32::from).collect();
        for (rank, &(left, right)) in merges.iter().enumerate() {
            let mut merged = Vec::new();
            let mut at = 0;
            while at < tokens.len() {
                let found = tokens[at] == left && tokens.get(at + 1) == Some(&right);
                merged.push(if found { 256 + rank as u32 } else { tokens[at] });
                at += if found { 2 } else { 1 };
            }
            tokens = merged;
        }
        all.extend(tokens);
    }
    assert!(all.iter().all(|&token| token < tokenizer.bos()));
    all
}

/// Merges as pairs of ids, found by what the tokens stand for.
fn merges_of(tokenizer: &Tokenizer) -> Vec<(u32, u32)> {
    let document: serde_json::Value = serde_json::from_str(&tokenizer.to_json()).unwrap();
    let id = |name: &serde_json::Value| {
        document["model"]["vocab"][name.as_str().unwrap()].as_u64().unwrap() as u32
    };
    document["model"]["merges"].as_array().unwrap().iter().map(|pair| (id(&pair[0]), id(&pair[1]))).collect()
}

proptest! {
    #[test]
    fn words_joined_are_the_text(text in any::<String>()) {
        prop_assert_eq!(words(&text).collect::<String>(), text);
    }

    #[test]
    fn decoding_gives_back_what_was_encoded(text in any::<String>(), learnt in any::<String>()) {
        let documents = [learnt.repeat(3), text.clone(), crate::babble(7, 50)];
        let tokenizer = Tokenizer::train(&documents, 330, 1).unwrap();
        let tokens = tokenizer.encode(&text);
        prop_assert_eq!(tokenizer.decode(&tokens), text.clone());
        let bytes: u32 = tokens.iter().map(|&token| tokenizer.token_bytes()[token as usize]).sum();
        prop_assert_eq!(bytes as usize, text.len());
    }

    #[test]
    fn encoding_is_every_merge_in_order(text in "[ab]{0,200}|[a-c \n]{0,80}|(abc|aab|  ){0,60}") {
        let documents = ["aabab abcabcabc aaaa  bb\n\n", "abababcab  ccc abc"].map(String::from);
        let documents: Vec<String> = documents.iter().map(|text| text.repeat(5)).collect();
        let tokenizer = Tokenizer::train(&documents, 290, 1).unwrap();
        let merges = merges_of(&tokenizer);
        prop_assert_eq!(tokenizer.encode(&text), encode_plainly(&tokenizer, &merges, &text));
    }
}
