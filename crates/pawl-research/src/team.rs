//! Several researchers in one campaign: whose turn it is.
//!
//! With shares (`claude:0.7,optimizer:0.3`) the next proposal is asked of whoever is furthest below its share.
//! Without, a bandit decides: Thompson sampling (Thompson, 1933) on what a researcher's trials were worth, the gain
//! of its promoted proposals in pair sds by the training runs they took. Both read the records only, so that a
//! resumed campaign goes on alike. Who has nothing to say sits out, longer each time, and the others go on. Drafts from
//! outside are never waited for while another has something to say.

use crate::inbox;
use crate::random::Random;
use crate::researcher::{Answer, Context, Researcher};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// One of a team.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who.
    pub researcher: Researcher,
    /// Its part of the proposals; `None` leaves it to results.
    pub share: Option<f64>,
}

/// Researchers that share a campaign.
#[derive(Debug)]
pub struct Team {
    members: Vec<Member>,
    /// By name: until which proposal it sits out, and for how many it did last. Of this process only: a campaign
    /// that goes on asks everyone again.
    sitting_out: Mutex<BTreeMap<String, (u64, u64)>>,
}

/// Spread, in pair sds a run, of what is believed of a researcher before its first trial, and of one trial.
const PRIOR_SD: f64 = 0.5;
const TRIAL_SD: f64 = 0.5;

/// Proposals that a researcher sits out at most before it is asked again.
const LONGEST_REST: u64 = 64;

/// After which time those that paused are asked again while drafts are waited for.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

impl Team {
    /// A team of at least one, with names that differ. Shares are given to all or to none and add up to a positive
    /// number.
    pub fn new(members: Vec<Member>) -> Result<Team, String> {
        let mut names: Vec<String> = members.iter().map(|member| member.researcher.name()).collect();
        names.sort();
        if names.is_empty() {
            return Err("no researcher is named".to_string());
        }
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("{} is named twice", twice[0]));
        }
        let shares: Vec<f64> = members.iter().filter_map(|member| member.share).collect();
        if !shares.is_empty() && shares.len() < members.len() {
            return Err("some researchers have a share and some have none".to_string());
        }
        if shares.iter().any(|share| !(*share > 0.0 && *share <= 1e6)) {
            return Err("shares are positive numbers".to_string());
        }
        Ok(Team { members, sitting_out: Mutex::default() })
    }

    /// As on the command line.
    pub fn name(&self) -> String {
        let one = |member: &Member| match member.share {
            Some(share) => format!("{}:{share}", member.researcher.name()),
            None => member.researcher.name(),
        };
        self.members.iter().map(one).collect::<Vec<_>>().join(",")
    }

    /// Asks members in turn until one has a draft.
    pub(crate) fn propose(&self, context: &Context<'_>) -> Answer {
        let waits = self.members.iter().any(takes_drafts);
        loop {
            let answer = self.ask(context);
            // Whoever pauses is asked again while drafts are waited for.
            let most = match answer {
                Answer::Exhausted if waits => None,
                Answer::Paused(_) if waits && !(context.interrupted)() => Some(ASKED_AGAIN),
                Answer::Draft(_) | Answer::Exhausted | Answer::Paused(_) => return answer,
            };
            if let Some(answer) = inbox::wait(context, most) {
                return answer;
            }
        }
    }

    /// Asks each once, who rests last.
    fn ask(&self, context: &Context<'_>) -> Answer {
        let mut paused: Vec<String> = Vec::new();
        // Those that sit out are asked when nobody else has anything to say.
        let order = self.order(context);
        let (resting, awake): (Vec<&Member>, Vec<&Member>) =
            order.into_iter().partition(|member| self.rests(&member.researcher.name(), context.number));
        for member in awake.into_iter().chain(resting) {
            let name = member.researcher.name();
            let answer = match takes_drafts(member) {
                true => inbox::at_once(context),
                false => member.researcher.propose(context),
            };
            match answer {
                Answer::Draft(draft) => {
                    self.resting().remove(&name);
                    return Answer::Draft(draft);
                }
                // To look costs nothing, so that it never sits out.
                Answer::Exhausted if takes_drafts(member) => {}
                Answer::Exhausted => self.rest(&name, context.number),
                Answer::Paused(reason) => {
                    if (context.interrupted)() {
                        return Answer::Paused(reason);
                    }
                    (context.say)(&format!("{name} pauses: {reason}"));
                    paused.push(format!("{name}: {reason}"));
                    self.rest(&name, context.number);
                }
            }
        }
        if paused.is_empty() { Answer::Exhausted } else { Answer::Paused(paused.join("; ")) }
    }

    /// Whose turn it is, first to last.
    fn order(&self, context: &Context<'_>) -> Vec<&Member> {
        let mut random = Random::new(&[context.seed, 0x7465, context.number]);
        let mut scored: Vec<(f64, &Member)> = self
            .members
            .iter()
            .map(|member| {
                let score = match member.share {
                    Some(share) => self.due(member, share, context),
                    None => drawn_worth(&member.researcher.name(), context, &mut random),
                };
                (score, member)
            })
            .collect();
        // Stable: of equals, the one named first.
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().map(|(_, member)| member).collect()
    }

    /// How many proposals it is behind its share.
    fn due(&self, member: &Member, share: f64, context: &Context<'_>) -> f64 {
        let total: f64 = self.members.iter().filter_map(|member| member.share).sum();
        let name = member.researcher.name();
        let own = context.history.proposals.iter().filter(|proposal| proposal.researcher == name).count();
        share / total * context.number as f64 - own as f64
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (u64, u64)>> {
        self.sitting_out.lock().expect("nobody panics with the lock")
    }

    fn rests(&self, name: &str, number: u64) -> bool {
        self.resting().get(name).is_some_and(|(until, _)| number < *until)
    }

    fn rest(&self, name: &str, number: u64) {
        let mut resting = self.resting();
        let length = resting.get(name).map_or(1, |(_, length)| (2 * length).min(LONGEST_REST));
        resting.insert(name.to_string(), (number + length, length));
    }
}

fn takes_drafts(member: &Member) -> bool {
    matches!(member.researcher, Researcher::Inbox)
}

/// A draw from what is believed of a researcher's gain by training run, pair sds.
fn drawn_worth(name: &str, context: &Context<'_>, random: &mut Random) -> f64 {
    let (mut sum, mut trials) = (0.0, 0.0);
    let own = context.history.history().filter(|(proposal, _)| proposal.researcher == name);
    for (_, verdict) in own.filter(|(_, verdict)| !verdict.pairs.is_empty()) {
        let gain = verdict.evidence.as_ref().filter(|_| verdict.promoted).map_or(0.0, |e| e.mean.max(0.0));
        sum += gain / context.noise.sd() / verdict.pairs.len() as f64;
        trials += 1.0;
    }
    let precision = PRIOR_SD.powi(-2) + trials * TRIAL_SD.powi(-2);
    sum * TRIAL_SD.powi(-2) / precision + random.normal() / precision.sqrt()
}
