//! Tokenizers of models from elsewhere.

use pawl_data::{Splitter, Tokenizer, Vocabulary};

/// All bytes, the merges `t h`, `th e` and ` the`, an end and two tokens of a chat.
fn vocabulary(splitter: &str) -> Vocabulary {
    let own = Tokenizer::train(&["x".to_string()], 265, 1).unwrap().vocabulary();
    let mut tokens = vec!["<|endoftext|>".to_string(), "<|im_start|>".into(), "<|im_end|>".into()];
    tokens.extend(own.tokens[..256].iter().cloned());
    tokens.extend(["th", "the", "\u{120}the"].map(String::from));
    let pair = |left: &str, right: &str| (left.to_string(), right.to_string());
    Vocabulary {
        special: (0..tokens.len()).map(|id| id < 3).collect(),
        tokens,
        merges: vec![pair("t", "h"), pair("th", "e"), pair("\u{120}", "the")],
        splitter: splitter.into(),
        bos: Some(1),
        eos: Some(2),
        adds_bos: false,
        chat_template: Some("{{ '<|im_start|>' }}".into()),
    }
}

#[test]
fn a_foreign_vocabulary_is_read_saved_and_read_again() {
    for (name, splitter) in [
        ("gpt-2", Splitter::Gpt2),
        ("smollm", Splitter::SingleDigits),
        ("llama-bpe", Splitter::Llama3),
        ("qwen2", Splitter::Qwen2),
    ] {
        let tokenizer = Tokenizer::from_vocabulary(vocabulary(name)).unwrap();
        assert_eq!(tokenizer.splitter(), splitter);
        let byte = |byte: u8| 3 + u32::from(byte);
        assert_eq!(tokenizer.encode("the the7"), [260, 261, byte(b'7')], "{name}");
        assert_eq!(tokenizer.decode(&[260, 261, byte(b'7')]), "the the7");
        assert_eq!((tokenizer.bos(), tokenizer.roles().ends.clone()), (0, vec![2, 0]), "{name}");
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save_folder(folder.path()).unwrap();
        let read = Tokenizer::load_folder(folder.path()).unwrap();
        assert_eq!((read.hash(), read.roles()), (tokenizer.hash(), tokenizer.roles()));
        assert_eq!(read.vocabulary(), tokenizer.vocabulary());
    }
}

#[test]
fn text_cannot_forge_a_special_token_of_another_model() {
    let tokenizer = Tokenizer::from_vocabulary(vocabulary("gpt-2")).unwrap();
    let tokens = tokenizer.encode("<|im_end|>");
    assert!(tokens.len() > 5 && !tokens.contains(&2));
    assert_eq!(tokenizer.token_bytes()[..3], [0, 0, 0]);
    assert_eq!((tokenizer.prompt("the"), tokenizer.prompt("")), (vec![260], vec![0]));
    let begins = Vocabulary { adds_bos: true, ..vocabulary("gpt-2") };
    assert_eq!(Tokenizer::from_vocabulary(begins).unwrap().prompt("the"), [1, 260]);
}

#[test]
fn what_would_give_other_tokens_is_refused() {
    assert!(Tokenizer::from_vocabulary(vocabulary("tekken")).unwrap_err().contains("tekken"));
    let mut unknown = vocabulary("gpt-2");
    unknown.merges.push(("q".into(), "q".into()));
    assert!(Tokenizer::from_vocabulary(unknown).unwrap_err().contains("merge 3"));
    let beyond = Vocabulary { eos: Some(9999), ..vocabulary("gpt-2") };
    assert!(Tokenizer::from_vocabulary(beyond).is_err());
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::from_vocabulary(vocabulary("llama-bpe")).unwrap();
    for (from, to) in [("{1,3}", "{1,4}"), ("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}")] {
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_json().replace(from, to)).unwrap();
        assert!(Tokenizer::load_folder(folder.path()).is_err(), "{to}");
    }
}

#[test]
fn a_padded_tokenizer_has_a_name_for_every_row_of_the_table() {
    let tokenizer = Tokenizer::from_vocabulary(vocabulary("gpt-2")).unwrap().padded(270);
    assert_eq!((tokenizer.vocab_size(), tokenizer.token_bytes().len()), (270, 270));
    assert_eq!(tokenizer.decode(&[269]), "[UNUSED269]");
}

#[test]
fn an_id_far_beyond_its_tokens_is_refused_and_gaps_are_not_slow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    Tokenizer::from_vocabulary(vocabulary("gpt-2")).unwrap().save(&path).unwrap();
    let plain = std::fs::read_to_string(&path).unwrap();
    let with_id = |id: u64| {
        let changed = plain.replacen("\"id\": 2,", &format!("\"id\": {id},"), 1);
        assert_ne!(changed, plain);
        std::fs::write(&path, changed).unwrap();
        Tokenizer::load(&path)
    };
    for id in [1 << 17, (1 << 24) - 2, 1 << 40, u64::MAX] {
        assert!(with_id(id).unwrap_err().to_string().contains("tokenizer"), "{id}");
    }
    // Sixty thousand ids without a token: each is looked up once.
    let gap = with_id(60_000).unwrap();
    assert_eq!(gap.vocab_size(), 60_001);
    assert_eq!(gap.special("<|im_end|>"), Some(60_000));
}
