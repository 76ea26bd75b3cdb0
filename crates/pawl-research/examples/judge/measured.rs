//! A file of measured pairs: lines `KIND<tab>SCORE<tab>SCORE`, bits per byte, champion first, `#` for comments.
//! The kind `aa` is the A/A pairs; every other kind is a change that changes nothing.

use pawl_research::evidence::{NoiseScale, Scores, differences};
use pawl_research::simulate::Measured;
use std::collections::BTreeMap;

/// Pairs of this project's own no-ops, trained for real.
pub(crate) fn no_ops() -> Measured {
    of("no_ops.tsv", include_str!("no_ops.tsv")).expect("the file in the repository is well formed")
}

pub(crate) fn read(path: &str) -> Result<Measured, String> {
    let text = std::fs::read_to_string(path).map_err(|why| format!("{path}: {why}"))?;
    of(path, &text)
}

fn of(path: &str, text: &str) -> Result<Measured, String> {
    let mut kinds: BTreeMap<&str, Vec<Scores>> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let (kind, scores) =
            parse(line).ok_or_else(|| format!("{path}:{}: not `KIND<tab>SCORE<tab>SCORE`", at + 1))?;
        kinds.entry(kind).or_default().push(scores);
    }
    let aa = kinds.remove("aa").filter(|aa| aa.len() >= 2);
    let aa = aa.ok_or_else(|| format!("{path}: fewer than two pairs of kind `aa`"))?;
    if kinds.is_empty() {
        return Err(format!("{path}: no kind beside `aa`"));
    }
    let sd = NoiseScale::of_differences(&differences(&aa)).sd();
    // In A/A sds about the mean of each kind: nothing changes nothing, whatever so many seeds gave on average.
    let scaled = |pairs: Vec<Scores>| {
        let mean = pairs.iter().map(|it| it.champion + it.challenger).sum::<f64>() / (2 * pairs.len()) as f64;
        let scale = |x: f64| (x - mean) / sd;
        let scale = |it: Scores| Scores { champion: scale(it.champion), challenger: scale(it.challenger) };
        pairs.into_iter().map(scale).collect::<Vec<_>>()
    };
    Ok(Measured { aa: scaled(aa), nulls: kinds.into_values().map(scaled).collect() })
}

fn parse(line: &str) -> Option<(&str, Scores)> {
    let mut fields = line.split('\t');
    let kind = fields.next()?;
    let mut score = || fields.next()?.trim().parse::<f64>().ok().filter(|x| x.is_finite());
    Some((kind, Scores { champion: score()?, challenger: score()? }))
}
