//! A batch of rollouts: groups of completions of the same problem, rewarded, with the numbers that the objective is
//! given for each of their tokens. Groups whose rewards are all alike teach nothing and are left out, and so are
//! completions that were cut off, unless the task counts those as wrong.

use crate::measure::{Speaker, prompt, text};
use crate::pretrain::TrainError;
use pawl_data::{Row, Tokenizer};
use pawl_eval::env::{Draws, Environment, ProblemSplit};
use pawl_model::{Draft, Model, Scorer};
use pawl_record::{Control, RlTask, RolloutRecord, RolloutSummary};

/// What the objective is given for each target, each 0 where a target does not count.
pub const RL_SIGNALS: &[&str] = &[
    "reward",
    "group_mean",
    "group_std",
    "group_size",
    "old_log_prob",
    "reference_log_prob",
    "token_share",
    "completion_share",
    "limit_share",
];

/// Tokens of a batch of rows that are scored.
const SCORED_TOKENS: usize = 2048;
/// Completions of a batch that are scored again, by the policy and by the reference: enough to know how far the model has
/// gone and that what was drawn is what is trained. The reference scores all where the objective reads it.
const PROBES: usize = 64;

/// A completion in its row.
struct Member {
    group: usize,
    /// Whether it is part of its group.
    counts: bool,
    prompt_len: usize,
    draft: Draft,
    text: String,
    reward: f64,
}

/// Rows and the numbers of their targets.
pub(crate) struct Batch {
    /// Empty where nothing is to be learnt.
    pub(crate) rows: Vec<Row>,
    /// By signal (rows, T).
    pub(crate) signals: Vec<Vec<f32>>,
    pub(crate) summary: RolloutSummary,
    pub(crate) records: Vec<RolloutRecord>,
}

/// Log-probabilities of the targets of rows under a model as it was when its parameters were taken.
pub(crate) struct LogProbs {
    scorer: Scorer,
    rows: usize,
    row_len: usize,
}

impl LogProbs {
    pub(crate) fn new(model: &Model, num_rows: usize) -> Result<LogProbs, TrainError> {
        let row_len = model.recipe().row_len();
        let rows = (SCORED_TOKENS / row_len).clamp(1, num_rows.max(1));
        Ok(LogProbs { scorer: Scorer::losses(model, rows, row_len)?, rows, row_len })
    }

    pub(crate) fn refresh(&mut self, model: &Model) {
        self.scorer.refresh(model);
    }

    /// (rows, T), 0 where there is no target.
    pub(crate) fn of(&mut self, model: &Model, rows: &[Row]) -> Vec<f32> {
        let mut log_probs = Vec::with_capacity(rows.len() * self.row_len);
        for part in rows.chunks(self.rows) {
            self.scorer.tokens_mut().fill(0);
            self.scorer.targets_mut().fill(-1);
            for (k, row) in part.iter().enumerate() {
                let place = k * self.row_len..(k + 1) * self.row_len;
                self.scorer.tokens_mut()[place.clone()].copy_from_slice(&row.inputs);
                self.scorer.targets_mut()[place].copy_from_slice(&row.targets);
            }
            let losses = self.scorer.run(model);
            log_probs.extend(losses[..part.len() * self.row_len].iter().map(|loss| -loss));
        }
        log_probs
    }
}

/// What rollouts are made with.
pub(crate) struct Gathering<'a> {
    pub(crate) task: &'a RlTask,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) env: &'a mut Environment,
    pub(crate) speaker: &'a mut Speaker,
    pub(crate) policy: &'a mut LogProbs,
    pub(crate) reference: &'a mut LogProbs,
    /// Whether the objective reads log-probabilities of the reference.
    pub(crate) reads_reference: bool,
    pub(crate) forward_flops: f64,
    pub(crate) seed: u64,
}

impl Gathering<'_> {
    /// Batch `batch` of a run, from the model as it is now.
    pub(crate) fn gather(&mut self, model: &Model, batch: u64) -> Result<Batch, TrainError> {
        self.speaker.refresh(model);
        self.policy.refresh(model);
        let row_len = model.recipe().row_len();
        let (members, prompts) = self.draw(batch, row_len)?;
        let rows: Vec<Row> =
            members.iter().map(|member| lay(&prompts[member.group].1, member, row_len)).collect();
        let probes: Vec<usize> = (0..rows.len()).step_by(rows.len().div_ceil(PROBES)).collect();
        let probed: Vec<Row> = probes.iter().map(|k| rows[*k].clone()).collect();
        let policy = self.policy.of(model, &probed);
        let reference = self.reference.of(model, &probed);
        let spoken: usize = members.iter().map(|m| m.prompt_len + m.draft.tokens.len()).sum();
        let mut flops = self.forward_flops * (spoken + 2 * probed.len() * row_len) as f64;
        let kept = mixed(&members, self.task.num_prompts as usize);
        let drift = drift(&probes, &members, row_len, &policy, &reference);
        let all_reference = if self.reads_reference {
            flops += self.forward_flops * (rows.len() * row_len) as f64;
            self.reference.of(model, &rows)
        } else {
            Vec::new()
        };
        let summary = summary(batch, &members, &kept, drift, flops);
        let records = members.iter().enumerate().map(|(at, member)| RolloutRecord {
            batch,
            problem: member.group as u64,
            sample: at as u64 % self.task.group_size,
            prompt: prompts[member.group].0.clone(),
            completion: member.text.clone(),
            num_tokens: member.draft.tokens.len() as u64,
            finished: member.draft.finished,
            reward: member.reward,
            log_prob: member.draft.log_probs.iter().map(|p| f64::from(*p)).sum(),
        });
        let records = records.collect();
        let (rows, signals) = match self.task.control {
            Some(Control::Rejection) => (rewarded(&members, rows), Vec::new()),
            Some(Control::Random | Control::Sft) | None => {
                let (max_tokens, num_micro) = (self.task.max_tokens, model.num_micro());
                let signals = signals(max_tokens, num_micro, &members, row_len, &all_reference, &kept);
                if signals.is_empty() {
                    (Vec::new(), signals)
                } else {
                    (masked(rows, &members, &kept), signals)
                }
            }
        };
        Ok(Batch { rows, signals, summary, records })
    }

    /// The completions of a batch, group after group, and the text and tokens of each prompt.
    fn draw(
        &mut self,
        batch: u64,
        row_len: usize,
    ) -> Result<(Vec<Member>, Vec<(String, Vec<u32>)>), TrainError> {
        let (num_prompts, group_size) = (self.task.num_prompts, self.task.group_size as usize);
        let mut problems = Vec::new();
        let mut prompts = Vec::new();
        for k in 0..num_prompts {
            let idx = batch * num_prompts + k;
            let problem = self.env.problem(ProblemSplit::Train, self.seed, idx, self.task.difficulty)?;
            let tokens = prompt(self.tokenizer, &problem)?;
            if tokens.len() + self.task.max_tokens as usize > row_len + 1 {
                return Err(TrainError::Lesson(format!(
                    "a prompt of {} tokens and an answer of {} do not fit a row of {row_len}",
                    tokens.len(),
                    self.task.max_tokens
                )));
            }
            prompts.push((problem.prompt.clone(), tokens));
            problems.push(problem);
        }
        let first = batch * num_prompts * self.task.group_size;
        let keyed: Vec<(u64, &[u32])> = (0..problems.len() * group_size)
            .map(|at| (first + at as u64, prompts[at / group_size].1.as_slice()))
            .collect();
        let drafts = self.speaker.speak(&keyed, self.seed)?;
        let mut members = Vec::with_capacity(drafts.len());
        for (at, draft) in drafts.into_iter().enumerate() {
            let group = at / group_size;
            let text = text(self.tokenizer, &draft);
            let reward = match (draft.finished, self.task.control) {
                (false, _) => 0.0,
                (true, Some(Control::Random)) => {
                    Draws::new(&["coin"], &[self.seed, first + at as u64]).below(2) as f64
                }
                (true, Some(Control::Rejection | Control::Sft) | None) => {
                    self.env.reward(&problems[group], &text)?
                }
            };
            let counts = draft.finished || self.task.cut_is_wrong;
            members.push(Member { group, counts, prompt_len: prompts[group].1.len(), draft, text, reward });
        }
        Ok((members, prompts))
    }
}

/// How far the model has gone from the reference, and the sampler from the model, on the rows that were scored.
struct Drift {
    kl: f64,
    gap: f64,
}

fn drift(probes: &[usize], members: &[Member], row_len: usize, policy: &[f32], reference: &[f32]) -> Drift {
    let (mut kl, mut gap, mut tokens) = (0.0, 0.0f64, 0usize);
    for (k, member) in probes.iter().map(|k| &members[*k]).enumerate() {
        for (i, drawn) in member.draft.log_probs.iter().enumerate() {
            let at = k * row_len + member.prompt_len - 1 + i;
            let behind = f64::from(reference[at] - policy[at]);
            kl += behind.exp() - behind - 1.0;
            gap = gap.max(f64::from((drawn - policy[at]).abs()));
            tokens += 1;
        }
    }
    Drift { kl: kl / tokens.max(1) as f64, gap }
}

fn summary(
    batch: u64,
    members: &[Member],
    kept: &[Option<Group>],
    drift: Drift,
    flops: f64,
) -> RolloutSummary {
    let n = members.len() as f64;
    let tokens: usize = members.iter().map(|member| member.draft.tokens.len()).sum();
    RolloutSummary {
        batch,
        reward: members.iter().map(|member| member.reward).sum::<f64>() / n,
        mixed_groups: kept.iter().flatten().count() as f64 / kept.len() as f64,
        truncated: members.iter().filter(|member| !member.draft.finished).count() as f64 / n,
        mean_tokens: tokens as f64 / n,
        kl_to_reference: drift.kl,
        sampler_gap: drift.gap,
        losses: Vec::new(),
        grad_norms: Vec::new(),
        flops,
    }
}

/// The numbers of each target by signal (rows, T); nothing where no group is kept. The policy that a completion was
/// drawn from is known by what it was drawn with. `reference` is empty where nobody reads it.
fn signals(
    max_tokens: u64,
    num_micro: usize,
    members: &[Member],
    row_len: usize,
    reference: &[f32],
    kept: &[Option<Group>],
) -> Vec<Vec<f32>> {
    let learnt = |member: &Member| member.counts && kept[member.group].is_some();
    let num_completions = members.iter().filter(|member| learnt(member)).count();
    let num_tokens: usize =
        members.iter().filter(|member| learnt(member)).map(|member| member.draft.tokens.len()).sum();
    if num_completions == 0 {
        return Vec::new();
    }
    // The mean over micro-batches of their sums is the sum over all, divided by their number.
    let micro = num_micro as f64;
    let completions = num_completions as f64;
    let mut signals = vec![vec![0.0; members.len() * row_len]; RL_SIGNALS.len()];
    for (k, member) in members.iter().enumerate().filter(|(_, member)| learnt(member)) {
        let group = kept[member.group].as_ref().expect("only kept groups are learnt");
        let len = member.draft.tokens.len() as f64;
        for (i, drawn) in member.draft.log_probs.iter().enumerate() {
            let at = k * row_len + member.prompt_len - 1 + i;
            let values = [
                member.reward,
                group.mean,
                group.std,
                group.size,
                f64::from(*drawn),
                reference.get(at).map_or(0.0, |log_prob| f64::from(*log_prob)),
                micro / num_tokens as f64,
                micro / (completions * len),
                micro / (completions * max_tokens as f64),
            ];
            for (signal, value) in signals.iter_mut().zip(values) {
                signal[at] = value as f32;
            }
        }
    }
    signals
}

/// Rewards of the completions of a problem that count.
struct Group {
    mean: f64,
    std: f64,
    size: f64,
}

/// The groups whose rewards differ.
fn mixed(members: &[Member], num_groups: usize) -> Vec<Option<Group>> {
    let mut rewards = vec![Vec::new(); num_groups];
    for member in members.iter().filter(|member| member.counts) {
        rewards[member.group].push(member.reward);
    }
    let group = |rewards: Vec<f64>| {
        let differ = rewards.iter().any(|reward| *reward != rewards[0]);
        let size = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / size;
        let variance = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / size;
        differ.then_some(Group { mean, std: variance.sqrt(), size })
    };
    rewards.into_iter().map(group).collect()
}

/// A prompt and its completion in a row of their own: as a sequence begins when it is drawn.
fn lay(prompt: &[u32], member: &Member, row_len: usize) -> Row {
    let mut tokens: Vec<i32> = prompt.iter().chain(&member.draft.tokens).map(|token| *token as i32).collect();
    let end = tokens.len();
    tokens.resize(row_len + 1, 0);
    let targets = (1..=row_len).map(|t| if t >= prompt.len() && t < end { tokens[t] } else { -1 });
    Row { targets: targets.collect(), inputs: tokens[..row_len].to_vec() }
}

/// Rows as they are, without the targets of what is not learnt.
fn masked(mut rows: Vec<Row>, members: &[Member], kept: &[Option<Group>]) -> Vec<Row> {
    for (row, member) in rows.iter_mut().zip(members) {
        if !member.counts || kept[member.group].is_none() {
            row.targets.fill(-1);
        }
    }
    rows
}

/// Only what was rewarded, as something to imitate; nothing where there is nothing.
fn rewarded(members: &[Member], mut rows: Vec<Row>) -> Vec<Row> {
    let mut any = false;
    for (row, member) in rows.iter_mut().zip(members) {
        if member.reward >= 1.0 {
            any = true;
        } else {
            row.targets.fill(-1);
        }
    }
    if any { rows } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pawl_recipe::{Lesson, Overrides, Recipe, Source, shipped, std_only};
    use pawl_record::SettingValue;
    use std::convert::Infallible;

    /// Logits are a row of a table, chosen by the token before: gradients are known in closed form.
    const TABLE: &str = r#"
load("std/optim.star", "sgd")
def model(tokens):
    return gather(param("table", (6, 6), normal(0.7)), tokens)
recipe(model = model, optimizer = lambda p: sgd(0.1), seq_len = 8, tokens_per_step = 16, micro_batch = 2,
       vocab_size = 6)
"#;
    const V: usize = 6;
    const ROW_LEN: usize = 7;
    const MAX_TOKENS: u64 = 4;

    fn member(group: usize, prompt_len: usize, tokens: &[u32], finished: bool, reward: f64) -> Member {
        let draft = Draft { tokens: tokens.to_vec(), log_probs: vec![0.0; tokens.len()], finished };
        Member { group, counts: finished, prompt_len, draft, text: String::new(), reward }
    }

    fn softmax(row: &[f32]) -> Vec<f64> {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        row.iter().map(|x| f64::from(*x).exp() / sum).collect()
    }

    /// Times that the eight completions are there, each time with other tokens: several micro-batches.
    const TIMES: usize = 24;

    fn turned(tokens: &[u32], by: usize) -> Vec<u32> {
        tokens.iter().map(|t| if *t == 5 { 5 } else { (t + by as u32) % 5 }).collect()
    }

    /// The gradient of a batch of completions against the same written by hand: prompts are no part of it, the end
    /// token is, and neither what was cut off nor a group whose rewards are alike counts.
    fn check_gradient(kind: &str, bound: f64, weight: fn(reward: f64, mean: f64, std: f64, len: f64) -> f64) {
        let eight = [
            member(0, 2, &[3, 5], true, 1.0),
            member(0, 2, &[4, 4, 5], true, 0.0),
            member(0, 2, &[2, 2, 2, 2], false, 0.0),
            member(0, 2, &[0, 5], true, 0.0),
            member(1, 3, &[1, 5], true, 1.0),
            member(1, 3, &[2, 5], true, 1.0),
            member(2, 1, &[5], true, 0.0),
            member(2, 1, &[1, 2, 5], true, 1.0),
        ];
        let mut members = Vec::new();
        let mut prompts = Vec::new();
        for by in 0..TIMES {
            members.extend(eight.iter().map(|m| {
                let tokens = turned(&m.draft.tokens, by);
                member(m.group + 3 * by, m.prompt_len, &tokens, m.draft.finished, m.reward)
            }));
            prompts.extend([&[1, 2][..], &[3, 1, 4], &[0]].map(|tokens| turned(tokens, by)));
        }
        let lesson = Lesson {
            source: Source {
                name: "rl.star".into(),
                text: shipped("std/lessons/rl.star").expect("shipped").into(),
            },
            signals: RL_SIGNALS.iter().map(ToString::to_string).collect(),
            num_rows: members.len(),
            row_len: ROW_LEN,
            dropout: false,
        };
        let values = [
            ("rl_loss".to_string(), SettingValue::Text(kind.into())),
            ("rl_max_grad_norm".to_string(), SettingValue::Float(bound)),
        ]
        .into();
        let source = Source { name: "table.star".into(), text: TABLE.into() };
        let overrides = Overrides { depth: None, values };
        let recipe = Recipe::load_lesson(&source, &overrides, &std_only, Some(&lesson)).expect("compiles");
        let scalars: Vec<f32> = recipe.schedule_table(1).expect("one step").iter().map(|r| r[0]).collect();
        let mut model = Model::new(recipe, 1, 3).expect("a model");
        let table = model.param("table").expect("the parameter").to_vec();

        let rows: Vec<Row> = members.iter().map(|m| lay(&prompts[m.group], m, ROW_LEN)).collect();
        let mut scorer = LogProbs::new(&model, rows.len()).expect("a scorer");
        scorer.refresh(&model);
        let policy = scorer.of(&model, &rows);
        for (k, m) in members.iter_mut().enumerate() {
            let from = k * ROW_LEN + m.prompt_len - 1;
            m.draft.log_probs.copy_from_slice(&policy[from..from + m.draft.tokens.len()]);
        }
        let kept = mixed(&members, prompts.len());
        let given = signals(MAX_TOKENS, model.num_micro(), &members, ROW_LEN, &policy, &kept);
        for (name, values) in RL_SIGNALS.iter().zip(&given) {
            model.signal_mut(name).expect("declared").copy_from_slice(values);
        }
        let rows = masked(rows, &members, &kept);
        let per_micro = rows.len() / model.num_micro();
        assert!(model.num_micro() > 1, "numbers must reach their own micro-batch");
        let Ok(_) = model.step(0, &scalars, |micro_idx, inputs, targets| {
            crate::sft::lay(&rows[micro_idx * per_micro..(micro_idx + 1) * per_micro], inputs, targets);
            Ok::<(), Infallible>(())
        });

        // Groups: (mean, standard deviation) of the finished; five of eight completions are learnt from.
        let groups = [Some((1.0 / 3.0, 2f64.sqrt() / 3.0)), None, Some((0.5, 0.5))];
        let mut want = vec![0.0; V * V];
        for m in members.iter().filter(|m| m.draft.finished) {
            let Some((mean, std)) = groups[m.group % 3] else { continue };
            let a = weight(m.reward, mean, std, m.draft.tokens.len() as f64) / (5 * TIMES) as f64;
            let mut before = *prompts[m.group].last().expect("no empty prompt") as usize;
            for token in &m.draft.tokens {
                let p = softmax(&table[before * V..(before + 1) * V]);
                for v in 0..V {
                    want[before * V + v] -= a * (f64::from(u8::from(v == *token as usize)) - p[v]);
                }
                before = *token as usize;
            }
        }
        assert!(want.iter().any(|g| g.abs() > 0.01), "{want:?}");
        if bound > 0.0 {
            let norm = want.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!((model.grad_norm().expect("bounded") - norm).abs() < 1e-5 && norm > bound, "{norm}");
            want.iter_mut().for_each(|g| *g *= bound / norm);
        }
        let got = model.grad("table").expect("the parameter");
        for (at, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{kind}, {at}: {got} is not {want}");
        }
    }

    #[test]
    fn the_gradient_of_a_batch_is_the_one_written_by_hand() {
        check_gradient("grpo", 0.0, |reward, mean, std, len| (reward - mean) / (std + 1e-4) / len);
        check_gradient("dr_grpo", 0.0, |reward, mean, _, _| (reward - mean) / MAX_TOKENS as f64);
        check_gradient("reinforce", 0.0, |reward, mean, _, _| (reward - mean) / MAX_TOKENS as f64);
        check_gradient("reinforce", 0.01, |reward, mean, _, _| (reward - mean) / MAX_TOKENS as f64);
        // Of 5 completions 11 tokens are learnt from.
        check_gradient("dapo", 0.0, |reward, mean, std, _| (reward - mean) / (std + 1e-4) * 5.0 / 11.0);
    }
}
