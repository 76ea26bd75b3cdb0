//! A lab with a campaign made up to look like a real one.

use pawl_record::{
    Budget, CampaignBudget, CampaignEnd, CampaignManifest, Category, Change, DataRef, Decision, EndReason,
    EqualTime, Evidence, FinalMeasurement, KeptEffect, Ladder, LearningPoint, Measured, Noise, NoisePair,
    PairRecord, Prediction, Promotion, Proposal, RecipeRef, RunManifest, RunResult, RunStatus, Rung, SCHEMA,
    SettingValue, Settings, Verdict, write_json,
};
use pawl_research::options::judge_settings;
use std::fs;
use std::path::Path;

/// All documents of a campaign and its runs.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) manifest: CampaignManifest,
    pub(crate) noise: Option<Noise>,
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) promotions: Vec<Promotion>,
    pub(crate) measured: Option<FinalMeasurement>,
    pub(crate) end: Option<CampaignEnd>,
    pub(crate) runs: Vec<(RunManifest, RunResult)>,
}

impl Story {
    pub(crate) fn write(&self, lab: &Path) {
        let campaign = lab.join("campaign");
        for folder in ["proposals", "verdicts", "champions", "recipes"] {
            fs::create_dir_all(campaign.join(folder)).unwrap();
        }
        write_json(&campaign.join("campaign.json"), &self.manifest).unwrap();
        if let Some(noise) = &self.noise {
            write_json(&campaign.join("noise.json"), noise).unwrap();
        }
        for proposal in &self.proposals {
            write_json(&campaign.join(format!("proposals/{:04}.json", proposal.number)), proposal).unwrap();
        }
        for verdict in &self.verdicts {
            write_json(&campaign.join(format!("verdicts/{:04}.json", verdict.proposal)), verdict).unwrap();
        }
        for promotion in &self.promotions {
            write_json(&campaign.join(format!("champions/{:04}.json", promotion.generation)), promotion)
                .unwrap();
        }
        if let Some(measured) = &self.measured {
            write_json(&campaign.join("final.json"), measured).unwrap();
        }
        if let Some(end) = &self.end {
            write_json(&campaign.join("end.json"), end).unwrap();
        }
        for (manifest, result) in &self.runs {
            let folder = lab.join("runs").join(&manifest.id);
            fs::create_dir_all(&folder).unwrap();
            write_json(&folder.join("run.json"), manifest).unwrap();
            write_json(&folder.join("result.json"), result).unwrap();
        }
    }

    /// The campaign when only its manifest is written.
    pub(crate) fn until_start(&self) -> Story {
        let mut story = self.until_verdict(0);
        story.proposals.clear();
        story.promotions.clear();
        story.noise = None;
        story
    }

    /// The campaign just after this verdict.
    pub(crate) fn until_verdict(&self, number: u64) -> Story {
        let mut story = self.clone();
        story.proposals.retain(|proposal| proposal.number <= number + 1);
        story.verdicts.retain(|verdict| verdict.proposal <= number);
        story.promotions.retain(|promotion| promotion.proposal.is_none_or(|proposal| proposal <= number));
        (story.measured, story.end) = (None, None);
        story
    }
}

/// Draws that are the same each time.
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

const SD: f64 = 0.0041;
const START: f64 = 2.417;
const RUN_FLOPS: f64 = 5e11;
const RUN_SECONDS: f64 = 4.2;

/// What is tried, what it is truly worth in pair standard deviations, and how it ends.
const TRIED: [(&str, &str, &str, f64, char); 37] = [
    ("qk_norm", "False", "True", 8.0, 'k'),
    ("embed_lr", "0.2", "0.31", -1.1, 'r'),
    ("mlp", "gelu", "swiglu", 0.4, 'u'),
    ("tied_embeddings", "True", "False", 3.9, 'k'),
    ("matrix_lr", "0.02", "0.0342", 0.1, 'r'),
    ("warmup_frac", "0.02", "0.0", -2.2, 'r'),
    ("norm", "layer_norm", "rms_norm", 0.2, 'u'),
    ("matrix_lr", "0.02", "0.19", 0.0, 'f'),
    ("mlp", "gelu", "relu_squared", 2.9, 'k'),
    ("qk_norm", "True", "True", 0.0, 's'),
    ("matrix_optimizer", "adamw", "muon", 12.5, 'k'),
    ("label_smoothing", "0.0", "0.1", -30.0, 'r'),
    ("positions", "learnt", "rope", 4.4, 'k'),
    ("weight_decay", "0.1", "0.03162", 0.3, 'r'),
    ("parallel_blocks", "False", "True", -4.0, 'r'),
    ("beta2", "0.999", "0.95", 1.2, 'u'),
    ("num_kv_heads", "4", "2", -1.5, 'r'),
    ("value_embeddings", "False", "True", 6.1, 'w'),
    ("window", "256", "128", -0.6, 'r'),
    ("softcap", "0.0", "15.0", 0.6, 'r'),
    ("matrix_lr", "0.02", "0.027", 0.9, 'u'),
    ("head_init", "0.02", "0.001", 2.2, 'k'),
    ("dropout", "0.0", "0.1", -9.0, 'r'),
    ("mtp", "1", "2", -3.0, 'r'),
    ("warmdown_frac", "0.2", "0.6", 3.1, 'k'),
    ("tokens_per_step", "16384", "8192", 0.0, 'f'),
    ("smear", "False", "True", 0.5, 'u'),
    ("placebo", "0", "1", 0.0, 'r'),
    ("x0_scalars", "False", "True", 0.8, 'u'),
    ("unet_skips", "False", "True", -0.4, 'r'),
    ("num_heads", "4", "8", -2.0, 'r'),
    ("bigram_embeddings", "False", "True", 2.0, 'u'),
    ("cautious_decay", "False", "True", 0.2, 'r'),
    ("short_conv", "False", "True", 1.6, 'u'),
    ("width_per_depth", "64", "96", 0.0, 's'),
    ("momentum", "0.95", "0.9", -0.8, 'r'),
    ("adam_eps", "1e-8", "1e-10", 0.0, 'o'),
];

fn recipe() -> RecipeRef {
    RecipeRef { name: "tiny".into(), hash: "ab".repeat(32), file: "recipes/tiny.star".into() }
}

fn run_id(n: u64) -> String {
    format!("{:012x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16)
}

/// A whole campaign: keeps, a keep that is too slow, rejects, open ends, failures, a measurement.
pub(crate) fn full() -> Story {
    let mut draws = Draws(7);
    let manifest = campaign_manifest();
    let noise = noise(&mut draws);
    let mut story = Story {
        promotions: vec![promotion(0, None, &Settings::new(), None, noise.mean_bpb, noise.elapsed_s)],
        noise: Some(noise),
        manifest,
        proposals: Vec::new(),
        verdicts: Vec::new(),
        measured: None,
        end: None,
        runs: Vec::new(),
    };
    let mut settings = Settings::new();
    let mut clock = 55.0;
    let mut tests = 0;
    for (idx, row) in TRIED.iter().enumerate() {
        let number = idx as u64 + 1;
        let generation = story.promotions.len() as u64 - 1;
        let proposal = proposal(number, generation, row, &mut draws);
        story.proposals.push(proposal.clone());
        if row.4 == 'o' {
            continue;
        }
        let verdict = verdict(&proposal, row, &mut tests, &mut clock, &mut draws);
        if verdict.promoted {
            settings.insert(row.0.into(), SettingValue::parse(row.2));
            let level = story.promotions.last().unwrap().mean_bpb - verdict.evidence.unwrap().mean;
            let next = promotion(generation + 1, Some(number), &settings, verdict.evidence, level, clock);
            story.promotions.push(next);
        }
        story.verdicts.push(verdict);
    }
    measure(&mut story, clock, &mut draws);
    story
}

fn campaign_manifest() -> CampaignManifest {
    CampaignManifest {
        schema: SCHEMA,
        id: "3fa94c01d2e7".into(),
        recipe: recipe(),
        settings: Settings::new(),
        rungs: Ladder::new(vec![Rung { depth: 4, flops: RUN_FLOPS, precision: pawl_record::Precision::F32 }])
            .unwrap(),
        data: DataRef { name: "crates".into(), hash: "5d".repeat(32) },
        seed: 1,
        researcher: "optimizer".into(),
        judge: judge_settings(),
        budget: CampaignBudget::Minutes(60.0),
        version: "0.1.0".into(),
        created_unix_s: 1_795_361_461,
        machine: "2 cores, AVX-512 + bf16, 233 GFLOP/s".into(),
    }
}

fn noise(draws: &mut Draws) -> Noise {
    let pair = |n: u64, draws: &mut Draws| {
        let difference = SD * draws.normal();
        let bpb = START + 2.0 * SD * draws.normal();
        let runs = [run_id(1000 + 2 * n), run_id(1001 + 2 * n)];
        NoisePair { seed: n, init_seed: n + 100, runs, bpb: [bpb, bpb - difference], difference }
    };
    Noise {
        schema: SCHEMA,
        pairs: (0..6).map(|n| pair(n, draws)).collect(),
        pair_sd: SD,
        pair_sd_upper: 2.2 * SD,
        unpaired_sd: 2.8 * SD,
        mean_bpb: START,
        run_seconds: RUN_SECONDS,
        flops: 12.0 * RUN_FLOPS,
        train_seconds: 12.0 * RUN_SECONDS,
        elapsed_s: 55.0,
    }
}

type Tried = (&'static str, &'static str, &'static str, f64, char);

fn proposal(number: u64, generation: u64, row: &Tried, draws: &mut Draws) -> Proposal {
    let change =
        Change { setting: row.0.into(), from: SettingValue::parse(row.1), to: SettingValue::parse(row.2) };
    let hypothesis = match row.0 {
        "qk_norm" => "bounded logits let attention train at a higher rate",
        "matrix_optimizer" => "orthogonal updates use the curvature that AdamW's diagonal misses",
        "warmdown_frac" => "a longer cool-down averages out more of the gradient noise",
        "positions" => "relative positions need no learning",
        _ => "an untried neighbour of the champion",
    };
    Proposal {
        schema: SCHEMA,
        number,
        generation,
        changes: vec![change],
        recipe: None,
        settings: Settings::new(),
        category: if row.1.parse::<f64>().is_ok() { Category::Knob } else { Category::Choice },
        hypothesis: hypothesis.into(),
        prediction: Prediction { gain_bpb: 0.004, keep_probability: 0.1 + 0.3 * draws.uniform() },
        researcher: "optimizer".into(),
        author: None,
        created_unix_s: 1_795_361_500 + 60 * number,
    }
}

fn verdict(proposal: &Proposal, row: &Tried, tests: &mut u64, clock: &mut f64, draws: &mut Draws) -> Verdict {
    let (num_pairs, decision) = match row.4 {
        'k' => (3 + (8.0 / row.3) as u64, Decision::Keep),
        'w' => (3, Decision::Keep),
        'r' => (if row.3 < -3.0 { 1 } else { 3 }, Decision::Reject("a gain worth having is unlikely".into())),
        'u' => (12, Decision::Undecided("neither shown in 12 pairs".into())),
        's' if row.0 == "qk_norm" => (0, Decision::Skipped("the same program was tried as #1".into())),
        's' => (0, Decision::Skipped("needs 212 MB, the limit is 128 MB".into())),
        _ => (1, Decision::Failed("loss became NaN at step 41 of 118".into())),
    };
    let failed = row.4 == 'f';
    let pairs: Vec<PairRecord> = (0..num_pairs).map(|n| pair(proposal, n, row.3, failed, draws)).collect();
    let differences: Vec<f64> = pairs.iter().filter_map(|pair| pair.difference).collect();
    let evidence = (!differences.is_empty()).then(|| {
        *tests += 1;
        evidence(&differences, row, *tests)
    });
    let runs = 2 * num_pairs - num_pairs / 3;
    *clock += runs as f64 * RUN_SECONDS / 2.0 + 0.2;
    Verdict {
        schema: SCHEMA,
        proposal: proposal.number,
        generation: proposal.generation,
        promoted: row.4 == 'k',
        decision,
        fingerprint: Some(format!("{:064x}", proposal.number)),
        num_params: Some(838_144),
        pairs,
        evidence,
        seconds_ratio: (num_pairs > 0).then(|| if row.4 == 'w' { 1.42 } else { 1.0 + 0.03 * draws.normal() }),
        equal_time: (row.4 == 'w').then(|| EqualTime {
            seconds_ratio: 1.42,
            champion_runs: vec![run_id(9000)],
            mean: -0.0061,
        }),
        climbs: Vec::new(),
        fresh: None,
        worth: None,
        flops: runs as f64 * RUN_FLOPS,
        runs,
        run_seconds: runs as f64 * RUN_SECONDS,
        elapsed_s: *clock,
        created_unix_s: proposal.created_unix_s + 30,
    }
}

fn pair(proposal: &Proposal, n: u64, worth: f64, failed: bool, draws: &mut Draws) -> PairRecord {
    let difference = SD * (worth + draws.normal());
    PairRecord {
        seed: n,
        champion_run: run_id(2000 + 20 * proposal.generation + n),
        challenger_run: run_id(4000 + 20 * proposal.number + n),
        champion_bpb: START,
        challenger_bpb: (!failed).then_some(START - difference),
        difference: (!failed).then_some(difference),
        seconds_ratio: 1.01,
        tokens_per_sec_ratio: 0.99,
    }
}

fn evidence(differences: &[f64], row: &Tried, test_index: u64) -> Evidence {
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let threshold = 20.0 * (1.0 + test_index as f64 * 0.8);
    let e_value = match row.4 {
        'k' | 'w' => threshold * (1.2 + row.3 * row.3),
        'u' => 1.0 + row.3,
        _ => 0.08,
    };
    let level = 1.0 / threshold;
    Evidence { mean, half_width: 3.2 * SD / n.sqrt(), e_value, threshold, level, test_index, sd: SD }
}

fn promotion(
    generation: u64,
    proposal: Option<u64>,
    settings: &Settings,
    gain: Option<Evidence>,
    mean_bpb: f64,
    elapsed_s: f64,
) -> Promotion {
    Promotion {
        fresh_runs: Vec::new(),
        fresh_bpb: Vec::new(),
        schema: SCHEMA,
        generation,
        proposal,
        origin: None,
        recipe: recipe(),
        settings: settings.clone(),
        fingerprint: format!("{generation:064x}"),
        num_params: 838_144,
        flops_per_step: 4.2e9,
        gain,
        mean_bpb,
        run: run_id(2000 + 20 * generation),
        elapsed_s,
    }
}

/// Fresh seeds for the champion, the start and each kept change: a little less than was told when they won.
fn measure(story: &mut Story, clock: f64, draws: &mut Draws) {
    let champion = story.promotions.last().unwrap().clone();
    let worth = 0.88 * (START - champion.mean_bpb);
    let start_runs: Vec<String> = (0..5).map(|n| run_id(6000 + n)).collect();
    let champion_runs: Vec<String> = (0..5).map(|n| run_id(6100 + n)).collect();
    for n in 0..5 {
        let (start, best) = (START + SD * draws.normal(), START - worth + SD * draws.normal());
        story.runs.push(run(&start_runs[n as usize], n, &Settings::new(), start, draws));
        story.runs.push(run(&champion_runs[n as usize], n, &champion.settings, best, draws));
    }
    story.runs.push(run(&story.promotions[0].run.clone(), 0, &Settings::new(), START, draws));
    story.runs.push(run(&champion.run, 0, &champion.settings, champion.mean_bpb, draws));
    let kept: Vec<KeptEffect> = story
        .promotions
        .iter()
        .filter_map(|promotion| {
            let gain = promotion.gain?.mean;
            let worth = 0.85 * gain;
            Some(KeptEffect {
                proposal: promotion.proposal?,
                runs: Vec::new(),
                search: measured(START, worth, draws),
            })
        })
        .collect();
    story.measured = Some(FinalMeasurement {
        schema: SCHEMA,
        generation: champion.generation,
        seeds: (100..105).collect(),
        start_runs,
        champion_runs,
        search: measured(START, worth, draws),
        sealed: Some(measured(START + 0.021, 0.97 * worth, draws)),
        seconds_ratio: 1.07,
        kept,
        above: Vec::new(),
        worth: None,
        flops: 50.0 * RUN_FLOPS,
        elapsed_s: clock + 120.0,
    });
    story.end = Some(CampaignEnd {
        schema: SCHEMA,
        reason: EndReason::Budget,
        generation: champion.generation,
        proposals: story.proposals.len() as u64,
        kept: 8,
        rejected: 17,
        undecided: 8,
        skipped: 2,
        failed: 2,
        runs: 300,
        flops: 300.0 * RUN_FLOPS,
        run_seconds: 300.0 * RUN_SECONDS,
        elapsed_s: clock + 121.0,
        workers: 2,
        brier: Some(0.17),
    });
}

fn measured(start: f64, worth: f64, draws: &mut Draws) -> Measured {
    let start_bpb: Vec<f64> = (0..5).map(|_| start + 2.0 * SD * draws.normal()).collect();
    let champion_bpb: Vec<f64> = start_bpb.iter().map(|bpb| bpb - worth - SD * draws.normal()).collect();
    let differences: Vec<f64> = start_bpb.iter().zip(&champion_bpb).map(|(a, b)| a - b).collect();
    let mean = differences.iter().sum::<f64>() / 5.0;
    Measured { start_bpb, champion_bpb, differences, mean, half_width: 2.776 * SD / 5f64.sqrt() }
}

fn run(
    id: &str,
    seed: u64,
    settings: &Settings,
    val_bpb: f64,
    draws: &mut Draws,
) -> (RunManifest, RunResult) {
    let mut all = Settings::from([
        ("depth".into(), SettingValue::Int(4)),
        ("qk_norm".into(), SettingValue::Bool(false)),
        ("mlp".into(), SettingValue::Text("gelu".into())),
        ("matrix_optimizer".into(), SettingValue::Text("adamw".into())),
        ("positions".into(), SettingValue::Text("learnt".into())),
        ("warmdown_frac".into(), SettingValue::Float(0.2)),
    ]);
    all.extend(settings.clone());
    let speed = if settings.is_empty() { 1.0 } else { 1.35 };
    let loss = |step: u64, draws: &mut Draws| {
        let x = speed * (step as f64 + 2.0) / 20.0;
        val_bpb * 1.9 + 3.7 * (-x).exp() + 0.35 / (1.0 + x) + 0.012 * draws.normal()
    };
    let curve =
        (1..=50).map(|n| n * 118 / 50).map(|step| LearningPoint { step, loss: loss(step, draws) }).collect();
    let manifest = RunManifest {
        schema: SCHEMA,
        id: id.into(),
        recipe: "tiny".into(),
        recipe_hash: "ab".repeat(32),
        fingerprint: "cd".repeat(32),
        settings: all,
        depth: 4,
        seed,
        init_seed: seed,
        data: DataRef { name: "crates".into(), hash: "5d".repeat(32) },
        budget: Budget::Flops(RUN_FLOPS),
        num_steps: 118,
        tokens_per_step: 4096,
        seq_len: 256,
        num_params: 838_144,
        flops_per_step: RUN_FLOPS / 118.0,
        seal: true,
        precision: pawl_record::Precision::F32,
        version: "0.1.0".into(),
        created_unix_s: 1_795_361_461,
        machine: "test".into(),
    };
    let result = RunResult {
        schema: SCHEMA,
        id: id.into(),
        status: RunStatus::Finished,
        reason: None,
        val_bpb: Some(val_bpb),
        val_bpb_by_domain: [("code".to_string(), val_bpb - 0.1)].into(),
        sealed_bpb: Some(val_bpb + 0.02),
        steps: 118,
        tokens: 118 * 4096,
        flops: RUN_FLOPS,
        train_seconds: RUN_SECONDS,
        total_seconds: 5.0,
        tokens_per_sec: 115_000.0,
        mfu: 0.5,
        peak_memory_bytes: 90_000_000,
        checkpoint_hash: None,
        curve,
        vitals: None,
    };
    (manifest, result)
}
