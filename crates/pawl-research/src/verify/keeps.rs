//! What became of keeps, again from the files: parts left out, champions that no proposal made, retractions,
//! replications, and the seeds of what the campaign proposed itself.

use super::{Asked, Check, shown};
use crate::campaign::{known_of, scale_of};
use crate::confirm;
use crate::duel::{pair_seed, scores_of};
use crate::evidence::Scores;
use crate::prune;
use crate::replicate::{against, seed, summary};
use crate::upkeep::first_pair;
use pawl_ledger::{Ledger, LedgerError, campaign_folder, line, made_by, parts};
use pawl_record::{
    Decision, Origin, PartClimb, PartRuling, Promotion, Pruning, Replication, Reproduced, RunResult,
    RunStatus, Verdict, read_json,
};

impl Check<'_> {
    /// Fewest and most keeps that may have stood when a verdict fell: within a round verdicts are filed in the order
    /// they fall, and the clock may stand between two.
    pub(super) fn kept_before(&self, verdict: &Verdict) -> (u64, u64) {
        let records = self.records;
        let keeps = |before: &dyn Fn(f64) -> bool, withdrawn: &dyn Fn(f64) -> bool| {
            let is_withdrawn = |proposal: u64| {
                records.retractions.iter().any(|it| it.proposal == proposal && withdrawn(it.elapsed_s))
            };
            let standing = records.verdicts.iter().filter(|other| {
                other.proposal != verdict.proposal
                    && other.promoted
                    && before(other.elapsed_s)
                    && !is_withdrawn(other.proposal)
            });
            standing.count() as u64
        };
        let at = verdict.elapsed_s;
        let least = keeps(&|it| it < at, &|it| it <= at);
        (least, keeps(&|it| it <= at, &|it| it < at).max(least))
    }

    /// Index of the first pair seed that a proposal had.
    pub(super) fn first_pair(&self, number: u64) -> u64 {
        let records = self.records;
        let Some(proposal) = records.proposals.iter().find(|it| it.number == number) else { return 0 };
        let history = records.proposals.iter().filter_map(|it| Some((it, records.verdict(it.number)?)));
        first_pair(&records.manifest, proposal, history)
    }

    pub(super) fn prunings(&mut self) {
        let records = self.records;
        for pruning in &records.prunings {
            let place = format!("part {}", pruning.number);
            for pair in &pruning.pairs {
                self.pair(&place, pruning.generation, pruning.fingerprint.as_deref(), pair);
            }
            self.seeds(&place, pruning.generation, 0, &pruning.pairs);
            self.part_ruling(&place, pruning);
            for climb in &pruning.climbs {
                self.part_climb(&format!("{place}, rung {}", climb.rung + 1), pruning, climb);
            }
            let earlier =
                &records.prunings[..records.prunings.iter().position(|it| it == pruning).unwrap_or(0)];
            let of = parts(&records.promotions, &records.proposals, earlier, pruning.generation);
            let is_it = |part: &pawl_ledger::Part| {
                part.proposal == pruning.proposal
                    && part.change.setting == pruning.change.setting
                    && part.change.from == pruning.change.to
            };
            if !of.iter().any(is_it) {
                self.differs(&place, format!("champion {} has no such part", pruning.generation));
            }
            let leaves = pruning.ruling == PartRuling::Leaves;
            let origin = Some(Origin::Pruned(pruning.number));
            if leaves != records.promotions.iter().any(|it| it.origin == origin) {
                let what = if leaves {
                    "it leaves and no champion is on file"
                } else {
                    "it stays and made a champion"
                };
                self.differs(&place, what);
            }
        }
    }

    fn part_ruling(&mut self, place: &str, pruning: &Pruning) {
        let Some(noise) = &self.records.noise else { return };
        let (judge, scale) = (&self.records.manifest.judge, scale_of(noise));
        let scores: Vec<Scores> = pruning.pairs.iter().filter_map(scores_of).collect();
        let mut ratios: Vec<f64> = pruning.pairs.iter().map(|pair| pair.seconds_ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios.get(ratios.len() / 2).copied();
        self.compare(place, "median ratio of seconds", pruning.seconds_ratio, ratio);
        self.compare(place, "margin", Some(pruning.margin_bpb), Some(prune::margin(judge, &scale)));
        let failed = scores.len() < pruning.pairs.len();
        let (ruling, follows) = match scores.is_empty() {
            true => (None, None),
            false => {
                let (ruling, evidence) = prune::rule(judge, &scale, &scores, ratio);
                (ruling, Some(evidence))
            }
        };
        if !failed {
            self.evidence(place, pruning.evidence.as_ref(), follows.as_ref());
        }
        let stays = matches!(pruning.ruling, PartRuling::Stays(_));
        // A part whose trial was cut short, by a failure or the budget, stays whatever the numbers say.
        let holds = match ruling {
            Some(PartRuling::Leaves) if !failed => self.leaves_above(place, pruning) == pruning.ruling,
            Some(ruling) if !failed => ruling == pruning.ruling,
            Some(_) | None => stays,
        };
        if !holds {
            self.differs(place, "its ruling does not follow from its pairs");
        }
    }

    /// What follows for a part that the first rung lets go.
    fn leaves_above(&mut self, place: &str, pruning: &Pruning) -> PartRuling {
        let num_above = self.records.manifest.rungs.all().len() - 1;
        for (climb, rung) in pruning.climbs.iter().zip(1..) {
            if climb.rung != rung || rung as usize > num_above {
                self.differs(place, format!("it climbs rung {} as its {rung}.", climb.rung));
            }
            let ruling = prune::on_rung(climb);
            if ruling != PartRuling::Leaves {
                return ruling;
            }
        }
        if pruning.climbs.len() < num_above {
            self.differs(place, format!("it was tried on {} of {num_above} rungs", pruning.climbs.len()));
        }
        let (times, judge) = (pruning.fresh_runs.len() as u64, &self.records.manifest.judge);
        // Campaigns from before keeps were confirmed may have left them out.
        let asked = times > 0 || judge.fresh_slack_sds.is_some();
        if asked && times != judge.champion_runs {
            self.differs(place, format!("it has {times} fresh runs, {} were asked", judge.champion_runs));
        }
        let mut diverges = false;
        for (idx, id) in (0..).zip(&pruning.fresh_runs) {
            let seed = pair_seed(self.records.manifest.seed, pruning.generation + 1, idx);
            let asked = Asked { fingerprint: pruning.fingerprint.as_deref(), ..self.asked(seed) };
            diverges |= self.score(place, id, &asked).is_none();
        }
        if diverges { PartRuling::Stays(prune::DIVERGES.to_string()) } else { PartRuling::Leaves }
    }

    fn part_climb(&mut self, place: &str, pruning: &Pruning, climb: &PartClimb) {
        let records = self.records;
        let Some(rung) = records.manifest.rungs.all().get(climb.rung as usize).copied() else {
            return self.differs(place, "the ladder has no such rung");
        };
        let programs = [Some(climb.champion_fingerprint.as_str()), climb.fingerprint.as_deref()];
        for pair in &climb.pairs {
            let asked = Asked { seed: pair.seed, init_seed: pair.seed, rung, fingerprint: None };
            self.arms(place, pair, programs, &asked);
        }
        self.climb_seeds(place, climb.rung, pruning.generation, &climb.pairs);
        let same_champion = |it: &Verdict| {
            it.generation != pruning.generation
                || it
                    .climbs
                    .iter()
                    .all(|it| it.rung != climb.rung || it.champion_fingerprint == climb.champion_fingerprint)
        };
        if !records.verdicts.iter().all(same_champion) {
            self.differs(place, "its champion is another program than that of those who climbed against it");
        }
        let scores: Vec<Scores> = climb.pairs.iter().filter_map(scores_of).collect();
        let is_same = climb.fingerprint.as_ref() == Some(&climb.champion_fingerprint);
        let stays = matches!(climb.ruling, PartRuling::Stays(_));
        let holds = match (&records.noise, scores.is_empty()) {
            (_, true) => stays || is_same,
            (Some(noise), false) => {
                let (ruling, follows) = prune::rule_above(&records.manifest.judge, &scale_of(noise), &scores);
                self.evidence(place, climb.evidence.as_ref(), Some(&follows));
                match ruling {
                    Some(ruling) if scores.len() == climb.pairs.len() => ruling == climb.ruling,
                    Some(_) | None => stays,
                }
            }
            (None, false) => stays,
        };
        if !holds {
            self.differs(place, "its ruling does not follow from its pairs");
        }
    }

    /// Whether a keep shows on fresh seeds what it was kept for; `stands` where nothing else speaks against it.
    pub(super) fn is_confirmed(&mut self, place: &str, verdict: &Verdict, stands: bool) -> bool {
        let records = self.records;
        let judge = &records.manifest.judge;
        let Some(fresh) = &verdict.fresh else {
            if stands && judge.fresh_slack_sds.is_some() {
                self.differs(place, "it was not tried on fresh seeds");
            }
            return true;
        };
        if !stands {
            self.differs(place, "it was tried on fresh seeds and something stood against it");
        }
        let mut scores = Vec::new();
        for (idx, id) in (0..).zip(&fresh.runs) {
            let seed = pair_seed(records.manifest.seed, verdict.generation + 1, idx);
            let asked = Asked { fingerprint: verdict.fingerprint.as_deref(), ..self.asked(seed) };
            scores.push(self.score(place, id, &asked));
        }
        if fresh.runs.len() as u64 != judge.champion_runs {
            let times = fresh.runs.len();
            self.differs(place, format!("it has {times} fresh runs, {} were asked", judge.champion_runs));
        }
        let bits = |scores: &[Option<f64>]| scores.iter().map(|it| it.map(f64::to_bits)).collect::<Vec<_>>();
        if bits(&fresh.bpb) != bits(&scores) {
            self.differs(place, "the scores of its fresh runs are not those in their files");
        }
        let champion = records.promotions.iter().find(|it| it.generation == verdict.generation);
        let (Some(noise), Some(champion)) = (&records.noise, champion) else { return fresh.holds };
        let known = known_of(noise, champion).starting_at(self.first_pair(verdict.proposal));
        let pairs: Vec<Scores> = verdict.pairs.iter().filter_map(scores_of).collect();
        let follows = !pairs.is_empty() && confirm::holds(judge, &known, &pairs, &scores);
        if fresh.holds != follows {
            self.differs(place, format!("holds on fresh seeds is {}, {follows} follows", fresh.holds));
        }
        follows
    }

    /// A champion that no proposal made.
    pub(super) fn derived(&mut self, place: &str, promotion: &Promotion, origin: Origin) {
        let records = self.records;
        let before = promotion.generation - 1;
        match origin {
            Origin::Pruned(number) => {
                let Some(pruning) = records.prunings.iter().find(|it| it.number == number) else {
                    return self.differs(place, "the trial of its part is not on file");
                };
                if pruning.generation != before {
                    self.differs(place, format!("its part left champion {}", pruning.generation));
                }
                if pruning.fingerprint.as_deref() != Some(&promotion.fingerprint) {
                    self.differs(place, "it is another program than the one that was tried");
                }
                if pruning.evidence != promotion.gain {
                    self.differs(place, "its gain is not the one of the trial of its part");
                }
                self.fresh_runs(place, promotion);
            }
            Origin::Restored { generation, retraction } => {
                let withdrawn = records.retractions.iter().find(|it| it.number == retraction);
                let made = withdrawn.and_then(|it| made_by(&records.promotions, it.proposal));
                let below = line(&records.promotions, before);
                let at = below.iter().position(|it| Some(*it) == made);
                if at.and_then(|at| at.checked_sub(1)).map(|at| below[at]) != Some(generation) {
                    self.differs(place, "no retraction leaves the champion that it restores");
                }
                let Some(known) = records.promotions.iter().find(|it| it.generation == generation) else {
                    return self.differs(place, "the champion that it restores is not on file");
                };
                let same = known.fingerprint == promotion.fingerprint
                    && known.settings == promotion.settings
                    && known.recipe == promotion.recipe
                    && known.run == promotion.run;
                if !same {
                    self.differs(place, format!("it is not champion {generation} again"));
                }
                self.compare(place, "mean score", Some(promotion.mean_bpb), Some(known.mean_bpb));
            }
        }
    }

    pub(super) fn retractions(&mut self) {
        let records = self.records;
        let last = records.promotions.last().map_or(0, |it| it.generation);
        let line = line(&records.promotions, last);
        for retraction in &records.retractions {
            let place = format!("retraction {}", retraction.number);
            if !records.verdict(retraction.proposal).is_some_and(|it| it.decision == Decision::Keep) {
                self.differs(&place, format!("#{} was not kept", retraction.proposal));
            }
            let made = made_by(&records.promotions, retraction.proposal);
            if made.is_some_and(|generation| line.contains(&generation)) {
                self.differs(&place, format!("the champion stands on #{}", retraction.proposal));
            }
            if let Some(number) = retraction.replication {
                let of = |it: &Replication| it.proposal == retraction.proposal && it.number == number;
                if !records.replications.iter().any(|it| of(it) && it.contradicts) {
                    self.differs(&place, format!("no replication {number} contradicts it"));
                }
            }
        }
    }

    pub(super) fn replications(&mut self) {
        let records = self.records;
        for replication in &records.replications {
            let place = format!("replication {:04}-{}", replication.proposal, replication.number);
            let Some(verdict) = records.verdict(replication.proposal) else {
                self.differs(&place, "its proposal has no verdict");
                continue;
            };
            self.reproduced(&place, replication, verdict);
            for pair in &replication.pairs {
                self.pair(&place, verdict.generation, verdict.fingerprint.as_deref(), pair);
            }
            // A pair on whose seed the champion diverged is left out, and no run shows that here.
            let most = replication.pairs.len() as u64 + super::MAX_VOID as u64;
            let (manifest, number) = (&records.manifest, replication.number);
            let mut seeds = (0..most).map(|idx| seed(manifest, replication.proposal, number, idx));
            for pair in &replication.pairs {
                if !seeds.any(|seed| seed == pair.seed) {
                    self.differs(&place, format!("seed {} is not the next of this replication", pair.seed));
                }
            }
            let (mean, half_width) = summary(&replication.pairs);
            self.compare(&place, "mean", replication.mean, mean);
            self.compare(&place, "half-width of its interval", replication.half_width, half_width);
            self.contradiction(&place, replication);
        }
    }

    fn contradiction(&mut self, place: &str, replication: &Replication) {
        let records = self.records;
        let Some(noise) = &records.noise else { return };
        let until =
            |it: &&Replication| it.proposal == replication.proposal && it.number <= replication.number;
        let pairs = records.replications.iter().filter(until).flat_map(|it| &it.pairs);
        let scores: Vec<Scores> = pairs.filter_map(scores_of).collect();
        let (contradicts, follows) = against(&records.manifest.judge, &scale_of(noise), &scores);
        self.evidence(place, replication.against.as_ref(), follows.as_ref());
        if replication.contradicts != contradicts {
            self.differs(place, format!("contradicts is {}, {contradicts} follows", replication.contradicts));
        }
        if contradicts && !records.is_retracted(replication.proposal) {
            self.differs(place, format!("it contradicts #{}, which still stands", replication.proposal));
        }
    }

    /// The first pair, trained anew: what its files say, beside what was on file.
    fn reproduced(&mut self, place: &str, replication: &Replication, verdict: &Verdict) {
        let Some(first) = verdict.pairs.iter().find(|pair| pair.challenger_bpb.is_some()) else {
            return self.differs(place, "its verdict has no pair to reproduce");
        };
        let known =
            [(&first.champion_run, Some(first.champion_bpb)), (&first.challenger_run, first.challenger_bpb)];
        let folder = campaign_folder(self.lab)
            .join(format!("replications/{:04}-{}/runs", replication.proposal, replication.number));
        for (it, (run, bpb)) in replication.reproduced.iter().zip(known) {
            if it.run != *run {
                self.differs(place, format!("run {} is not of the first pair", it.run));
            }
            self.compare(place, &format!("score of run {}", it.run), it.bpb, bpb);
            let again: Result<RunResult, _> = read_json(&folder.join(&it.again).join("result.json"));
            match again {
                Ok(result) => self.again(place, it, &result),
                Err(error) => self.differs(place, error.to_string()),
            }
        }
    }

    fn again(&mut self, place: &str, it: &Reproduced, result: &RunResult) {
        let score = match result.status {
            RunStatus::Finished => result.val_bpb,
            RunStatus::Diverged => None,
        };
        let bits = |score: Option<f64>| score.map(f64::to_bits);
        if bits(score) != bits(it.again_bpb) || result.id != it.again {
            let (here, there) = (shown(it.again_bpb), shown(score));
            self.differs(place, format!("run {} again scored {here}, its files say {there}", it.again));
        }
        let same = it.run == it.again && bits(it.bpb) == bits(score);
        if it.same != same {
            self.differs(place, format!("whether run {} is the same is {}, {same} follows", it.run, it.same));
        }
    }

    /// The index against the files, for these records.
    pub(super) fn keep_rows(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        let says = "its row in the ledger says something else";
        let records = self.records;
        for row in ledger.prunings()? {
            if records.prunings.iter().any(|file| file.number == row.number && *file != row) {
                self.differs(&format!("part {}", row.number), says);
            }
        }
        for row in ledger.retractions()? {
            if records.retractions.iter().any(|file| file.number == row.number && *file != row) {
                self.differs(&format!("retraction {}", row.number), says);
            }
        }
        for row in ledger.replications()? {
            let same = |file: &&Replication| file.proposal == row.proposal && file.number == row.number;
            if records.replications.iter().filter(same).any(|file| *file != row) {
                self.differs(&format!("replication {:04}-{}", row.proposal, row.number), says);
            }
        }
        Ok(())
    }
}
