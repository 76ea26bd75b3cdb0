//! A batch of rollouts: groups of completions of the same problem, rewarded, with the numbers that the objective is
//! given for each of their tokens. Groups whose rewards are all alike teach nothing and are left out, and so are
//! completions that were cut off.

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

/// A completion in its row.
struct Member {
    group: usize,
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
        let policy = self.policy.of(model, &rows);
        let reference = self.reference.of(model, &rows);
        let spoken: usize = members.iter().map(|m| m.prompt_len + m.draft.tokens.len()).sum();
        let flops = self.forward_flops * (spoken + 2 * rows.len() * row_len) as f64;
        let kept = mixed(&members, self.task.num_prompts as usize);
        let summary = self.summary(batch, &members, &rows, &policy, &reference, &kept, flops);
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
                let signals = self.signals(model, &members, &rows, &policy, &reference, &kept);
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
            members.push(Member { group, prompt_len: prompts[group].1.len(), draft, text, reward });
        }
        Ok((members, prompts))
    }

    fn summary(
        &self,
        batch: u64,
        members: &[Member],
        rows: &[Row],
        policy: &[f32],
        reference: &[f32],
        kept: &[Option<Group>],
        flops: f64,
    ) -> RolloutSummary {
        let n = members.len() as f64;
        let tokens: usize = members.iter().map(|member| member.draft.tokens.len()).sum();
        let (mut kl, mut gap) = (0.0, 0.0f64);
        let row_len = rows[0].inputs.len();
        for (k, member) in members.iter().enumerate() {
            for (i, drawn) in member.draft.log_probs.iter().enumerate() {
                let at = k * row_len + member.prompt_len - 1 + i;
                let behind = f64::from(reference[at] - policy[at]);
                kl += behind.exp() - behind - 1.0;
                gap = gap.max(f64::from((drawn - policy[at]).abs()));
            }
        }
        RolloutSummary {
            batch,
            reward: members.iter().map(|member| member.reward).sum::<f64>() / n,
            mixed_groups: kept.iter().flatten().count() as f64 / kept.len() as f64,
            truncated: members.iter().filter(|member| !member.draft.finished).count() as f64 / n,
            mean_tokens: tokens as f64 / n,
            kl_to_reference: kl / tokens as f64,
            sampler_gap: gap,
            losses: Vec::new(),
            flops,
        }
    }

    /// The numbers of each target by signal (rows, T); nothing where no group is kept.
    fn signals(
        &self,
        model: &Model,
        members: &[Member],
        rows: &[Row],
        policy: &[f32],
        reference: &[f32],
        kept: &[Option<Group>],
    ) -> Vec<Vec<f32>> {
        let row_len = rows[0].inputs.len();
        let learnt = |member: &Member| member.draft.finished && kept[member.group].is_some();
        let num_completions = members.iter().filter(|member| learnt(member)).count();
        let num_tokens: usize =
            members.iter().filter(|member| learnt(member)).map(|member| member.draft.tokens.len()).sum();
        if num_completions == 0 {
            return Vec::new();
        }
        // The mean over micro-batches of their sums is the sum over all, divided by their number.
        let micro = model.num_micro() as f64;
        let completions = num_completions as f64;
        let mut signals = vec![vec![0.0; rows.len() * row_len]; RL_SIGNALS.len()];
        for (k, member) in members.iter().enumerate().filter(|(_, member)| learnt(member)) {
            let group = kept[member.group].as_ref().expect("only kept groups are learnt");
            let len = member.draft.tokens.len() as f64;
            for i in 0..member.draft.tokens.len() {
                let at = k * row_len + member.prompt_len - 1 + i;
                let values = [
                    member.reward,
                    group.mean,
                    group.std,
                    group.size,
                    f64::from(policy[at]),
                    f64::from(reference[at]),
                    micro / num_tokens as f64,
                    micro / (completions * len),
                    micro / (completions * self.task.max_tokens as f64),
                ];
                for (signal, value) in signals.iter_mut().zip(values) {
                    signal[at] = value as f32;
                }
            }
        }
        signals
    }
}

/// Rewards of the finished completions of a problem.
struct Group {
    mean: f64,
    std: f64,
    size: f64,
}

/// The groups whose rewards differ; completions that were cut off are no part of them.
fn mixed(members: &[Member], num_groups: usize) -> Vec<Option<Group>> {
    let mut rewards = vec![Vec::new(); num_groups];
    for member in members.iter().filter(|member| member.draft.finished) {
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
        if !member.draft.finished || kept[member.group].is_none() {
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
