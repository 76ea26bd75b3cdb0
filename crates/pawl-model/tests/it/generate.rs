//! Many texts at once are the texts one gets one by one.

use pawl_model::{
    DecodeOptions, Emitted, Ended, Generator, LogProb, Model, Request, Sampler, SamplerSettings, Scorer,
    log_prob,
};
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use pawl_record::SettingValue;
use std::collections::BTreeMap;

fn model() -> Model {
    let source = Source { name: "llama".into(), text: shipped("llama").unwrap().into() };
    let values =
        [("vocab_size", 60), ("seq_len", 48), ("width", 32), ("tokens_per_step", 48), ("head_dim", 8)];
    let values = values.map(|(name, n)| (name.to_string(), SettingValue::Int(n))).into();
    let recipe = Recipe::load(&source, &Overrides { depth: Some(2), values }, &std_only).unwrap();
    let mut model = Model::frozen(recipe, 1).unwrap();
    model.draw(3);
    // Sharper than at the start, so that one token is not as good as any.
    model.tensor_mut("embed.weight").unwrap().floats_mut().iter_mut().for_each(|x| *x *= 30.0);
    model
}

fn request(n: u32) -> Request {
    let settings = match n % 3 {
        0 => SamplerSettings { temperature: 0.0, ..SamplerSettings::default() },
        1 => SamplerSettings { seed: u64::from(n), ..SamplerSettings::default() },
        _ => SamplerSettings { temperature: 1.3, top_p: 0.9, top_k: 30, min_p: 0.01, seed: u64::from(n) },
    };
    let prompt = (0..=n * 5 % 23).map(|i| (i * 7 + n * 11) % 60).collect();
    Request {
        prompt,
        max_tokens: 3 + n as usize % 19,
        settings,
        ends: (52..60).collect(),
        num_top: 2,
        echo: n.is_multiple_of(2),
    }
}

fn run(model: &Model, batch: usize, max_tokens: usize, requests: &[u32]) -> BTreeMap<u64, Vec<Emitted>> {
    let options = DecodeOptions { max_tokens, ..DecodeOptions::default() };
    let mut generator = Generator::new(model, batch, options).unwrap();
    for n in requests {
        generator.submit(u64::from(*n), request(*n)).unwrap();
    }
    let mut all = BTreeMap::<u64, Vec<Emitted>>::new();
    generator.run(&mut |id, emitted| {
        all.entry(id).or_default().push(emitted);
        true
    });
    assert!(!generator.is_busy());
    all
}

fn drawn(emitted: &[Emitted]) -> Vec<LogProb> {
    let token = |emitted: &Emitted| match emitted {
        Emitted::Token { token, .. } => Some(*token),
        Emitted::Prompt { .. } | Emitted::End(_) => None,
    };
    emitted.iter().filter_map(token).collect()
}

#[test]
fn neighbours_and_chunks_change_no_bit() {
    let model = model();
    let all: Vec<u32> = (0..14).collect();
    let together = run(&model, 4, 9, &all);
    assert_eq!(together.len(), 14);
    for n in all {
        assert_eq!(run(&model, 1, 32, &[n])[&u64::from(n)], together[&u64::from(n)], "request {n}");
    }
}

#[test]
fn tokens_are_those_of_a_sampler_and_log_probabilities_those_of_the_full_pass() {
    let model = model();
    let mut num_ended = 0;
    for (n, emitted) in run(&model, 4, 16, &(0..14).collect::<Vec<_>>()) {
        let request = request(n as u32);
        let mut sampler = Sampler::new(&model, request.settings).unwrap();
        let mut tokens = request.prompt.clone();
        let told = drawn(&emitted);
        for token in &told {
            assert_eq!(sampler.next(&model, &tokens), token.token, "request {n}");
            tokens.push(token.token);
        }
        match emitted.last() {
            Some(Emitted::End(Ended::Stop)) => {
                num_ended += 1;
                assert!(request.ends.contains(&sampler.next(&model, &tokens)));
            }
            other => {
                assert_eq!(other, Some(&Emitted::End(Ended::Length)));
                assert_eq!(told.len(), request.max_tokens);
            }
        }
        let mut scorer = Scorer::logits(&model, 1, tokens.len()).unwrap();
        scorer.refresh(&model);
        scorer.tokens_mut().iter_mut().zip(&tokens).for_each(|(to, token)| *to = *token as i32);
        let logits = scorer.run(&model).to_vec();
        let exact = |place: usize| log_prob(&logits[(place - 1) * 60..place * 60], tokens[place]);
        let all = emitted.iter().filter_map(|emitted| match emitted {
            Emitted::Prompt { token, top } | Emitted::Token { token, top } => Some((token, top)),
            Emitted::End(_) => None,
        });
        let first = if request.echo { 1 } else { request.prompt.len() };
        let all: Vec<_> = all.collect();
        assert_eq!(all.len(), tokens.len() - first, "request {n}");
        for (place, (token, top)) in (first..).zip(all) {
            assert_eq!(token.token, tokens[place]);
            // Worst seen 5e-6.
            assert!((token.log_prob - exact(place)).abs() < 5e-5, "request {n}, place {place}");
            assert!(
                top.len() == 2 && top[0].log_prob >= top[1].log_prob && top[0].log_prob >= token.log_prob
            );
        }
    }
    assert!(num_ended > 0, "some text should have ended by itself");
}

#[test]
fn a_reader_that_has_enough_frees_its_sequence() {
    let model = model();
    let mut generator = Generator::new(&model, 1, DecodeOptions::default()).unwrap();
    for n in [1, 4, 7] {
        generator.submit(n, Request { max_tokens: 20, ends: Vec::new(), ..request(n as u32) }).unwrap();
    }
    generator.cancel(4);
    let mut heard = Vec::new();
    generator.run(&mut |id, emitted| {
        heard.push((id, matches!(emitted, Emitted::End(_))));
        heard.iter().filter(|(one, _)| *one == 1).count() < 3
    });
    assert_eq!(heard.iter().filter(|(id, _)| *id == 1).count(), 3);
    assert!(heard.iter().all(|(id, _)| *id != 4));
    assert!(heard.is_empty() || !heard.contains(&(1, true)), "a text given up has no end");
}

#[test]
fn what_cannot_fit_is_refused() {
    let model = model();
    let mut generator = Generator::new(&model, 1, DecodeOptions::default()).unwrap();
    let long = |len: usize, max_tokens| Request { prompt: vec![1; len], max_tokens, ..Request::default() };
    assert!(generator.submit(0, long(0, 1)).is_err());
    assert!(generator.submit(0, long(49, 1)).is_err());
    generator.submit(0, Request { echo: true, ..long(48, 0) }).unwrap();
    generator.submit(1, long(47, 9)).unwrap();
    let (mut ends, mut num_drawn) = (Vec::new(), 0);
    generator.run(&mut |id, emitted| {
        match emitted {
            Emitted::End(why) => ends.push((id, why)),
            Emitted::Token { .. } => num_drawn += 1,
            Emitted::Prompt { .. } => {}
        }
        true
    });
    assert_eq!(ends, [(0, Ended::Length), (1, Ended::Length)]);
    assert_eq!(num_drawn, 2, "one after the prompt, and one after the last position");
}
