//! The climb of every keep again, and what the kept changes are worth in compute.

use super::{Asked, Check, same, shown};
use crate::ascent::climb_seed;
use crate::campaign::scale_of;
use crate::climb;
use crate::duel::{MAX_VOID, scores_of};
use crate::worth;
use pawl_record::{Climb, Decision, Factor, FinalMeasurement, LawPoint, PairRecord, Rung, Verdict, Worth};

impl Check<'_> {
    /// Whether a keep holds on every rung above the first, and so becomes champion if it need not lose at equal
    /// seconds.
    pub(super) fn climbs(&mut self, place: &str, verdict: &Verdict, wins_time: bool) -> bool {
        let num_above = self.records.manifest.rungs.all().len() - 1;
        if !wins_time {
            return false;
        }
        for (climb, rung) in verdict.climbs.iter().zip(1..) {
            if climb.rung != rung || rung as usize > num_above {
                self.differs(place, format!("it climbs rung {} as its {rung}.", climb.rung));
                return false;
            }
            self.climb(&format!("{place}, rung {}", rung + 1), verdict, climb);
        }
        let missing = verdict.climbs.len() < num_above && verdict.climbs.iter().all(Climb::held);
        if missing {
            self.differs(place, format!("it climbed {} of {num_above} rungs", verdict.climbs.len()));
        }
        let manifest = &self.records.manifest;
        let follows = worth::of_keep(manifest, verdict.proposal, &verdict.pairs, &verdict.climbs);
        self.worth(place, verdict.worth.as_ref(), follows.as_ref());
        !missing && verdict.climbs.iter().all(Climb::held)
    }

    fn climb(&mut self, place: &str, verdict: &Verdict, climb: &Climb) {
        let rung = self.records.manifest.rungs.all()[climb.rung as usize];
        for pair in &climb.pairs {
            let asked = Asked { seed: pair.seed, init_seed: pair.seed, rung, fingerprint: None };
            let programs = [Some(climb.champion_fingerprint.as_str()), climb.fingerprint.as_deref()];
            self.arms(place, pair, programs, &asked);
        }
        let judge = &self.records.manifest.judge;
        self.climb_seeds(place, climb.rung, verdict.generation, &climb.pairs);
        self.same_champion(place, verdict, climb);
        let pairs: Vec<_> = climb.pairs.iter().filter_map(scores_of).collect();
        let (Some(noise), Some(evidence)) = (&self.records.noise, &climb.evidence) else {
            match &climb.decision {
                Decision::Failed(_) => {}
                Decision::Undecided(why) if why == climb::OUT_OF_BUDGET && pairs.is_empty() => {}
                Decision::Keep | Decision::Reject(_) | Decision::Undecided(_) | Decision::Skipped(_) => {
                    self.differs(place, "it decides without evidence");
                }
            }
            return;
        };
        if pairs.is_empty() {
            self.differs(place, "it decides without a pair");
            return;
        }
        let test_index = verdict.evidence.map_or(0, |evidence| evidence.test_index);
        let (ruling, follows) = climb::rule(judge, &scale_of(noise), &pairs, test_index);
        self.evidence(place, Some(evidence), Some(&follows));
        self.decision(place, &climb.decision, ruling);
    }

    /// Pairs on a rung above the first use the seeds of their champion there in order.
    pub(super) fn climb_seeds(&mut self, place: &str, rung: u64, generation: u64, pairs: &[PairRecord]) {
        let manifest = &self.records.manifest;
        let limit = manifest.judge.climb_max_pairs + MAX_VOID as u64;
        let seed = manifest.seed;
        let mut seeds = (0..=limit).map(|idx| climb_seed(seed, rung, generation, idx));
        for pair in pairs {
            if !seeds.any(|seed| seed == pair.seed) {
                self.differs(place, format!("seed {} is not the next of this champion", pair.seed));
            }
        }
    }

    /// The champion of a rung is one program for all who climb against it, and the one that climbed before.
    fn same_champion(&mut self, place: &str, verdict: &Verdict, climb: &Climb) {
        let on_rung = |other: &&Climb| other.rung == climb.rung;
        for other in &self.records.verdicts {
            let Some(theirs) = other.climbs.iter().find(on_rung) else { continue };
            let program = match other.generation {
                generation if generation == verdict.generation => Some(&theirs.champion_fingerprint),
                generation if generation + 1 == verdict.generation && other.promoted => {
                    theirs.fingerprint.as_ref()
                }
                _ => continue,
            };
            if program.is_some_and(|program| *program != climb.champion_fingerprint) {
                self.differs(place, format!("its champion is another program than #{}'s", other.proposal));
            }
        }
    }

    pub(super) fn measured_above(&mut self, place: &str, measured: &FinalMeasurement) {
        for above in &measured.above {
            let place = format!("{place}, rung {}", above.rung + 1);
            let Some(rung) = self.records.manifest.rungs.all().get(above.rung as usize).copied() else {
                self.differs(&place, "the ladder has no such rung");
                continue;
            };
            for (ids, on_file) in [
                (&above.start_runs, &above.search.start_bpb),
                (&above.champion_runs, &above.search.champion_bpb),
            ] {
                if ids.len() != above.seeds.len() || on_file.len() != above.seeds.len() {
                    self.differs(&place, "a run, a score or a seed is missing");
                    continue;
                }
                for ((id, seed), on_file) in ids.iter().zip(&above.seeds).zip(on_file) {
                    if !measured.seeds.contains(seed) {
                        self.differs(&place, format!("seed {seed} is not one of the fresh ones"));
                    }
                    let asked = Asked { seed: *seed, init_seed: *seed, rung, fingerprint: None };
                    let follows = self.score(&place, id, &asked);
                    self.compare(&place, &format!("score of run {id}"), Some(*on_file), follows);
                }
            }
            let both = above.search.start_bpb.iter().zip(&above.search.champion_bpb);
            for (on_file, (start, champion)) in above.search.differences.iter().zip(both) {
                self.compare(&place, "difference of a pair", Some(*on_file), Some(start - champion));
            }
        }
    }

    /// `start` are the starting recipe's scores on the first rung, by seed.
    pub(super) fn final_worth(&mut self, place: &str, measured: &FinalMeasurement, start: &[Option<f64>]) {
        let records = self.records;
        let ladder = &records.manifest.rungs;
        let scored = measured.start_runs.iter().zip(start);
        let (runs, bpb) = scored.filter_map(|(run, bpb)| Some((run.clone(), (*bpb)?))).unzip();
        let first = ladder.first();
        let mut points = vec![LawPoint { depth: first.depth, flops: first.flops, runs, bpb }];
        points.extend(worth::start_above(ladder, &measured.above, records.verdicts.iter()));
        // Runs of half the budget stand nowhere else: they are read from the point itself.
        if let Some(shorter) = measured.worth.as_ref().and_then(|it| it.points.first())
            && ladder.all().len() == 1
        {
            points.insert(0, self.shorter(place, measured, shorter));
        }
        let follows = worth::of_final(
            &records.manifest,
            measured.generation,
            points,
            &measured.search,
            &measured.above,
        );
        self.worth(place, measured.worth.as_ref(), follows.as_ref());
    }

    fn shorter(&mut self, place: &str, measured: &FinalMeasurement, point: &LawPoint) -> LawPoint {
        let first = self.records.manifest.rungs.first();
        let rung = Rung { flops: first.flops * worth::SHORTER, ..first };
        let program = self.records.promotions.first().map(|start| start.fingerprint.as_str());
        let mut bpb = Vec::new();
        for id in &point.runs {
            let seed = self.run(id).map_or(0, |run| run.manifest.seed);
            if !measured.seeds.contains(&seed) {
                self.differs(place, format!("run {id} has none of the fresh seeds"));
            }
            let asked = Asked { seed, init_seed: seed, rung, fingerprint: program };
            bpb.extend(self.score(place, id, &asked));
        }
        LawPoint { depth: rung.depth, flops: rung.flops, runs: point.runs.clone(), bpb }
    }

    fn worth(&mut self, place: &str, on_file: Option<&Worth>, follows: Option<&Worth>) {
        let (on_file, follows) = match (on_file, follows) {
            (Some(on_file), Some(follows)) => (on_file, follows),
            (None, None) => return,
            (on_file, _) => {
                let is =
                    if on_file.is_some() { "one is on file and none follows" } else { "none is on file" };
                self.differs(place, format!("its worth in compute: {is}"));
                return;
            }
        };
        self.compare(place, "exponent of the law", Some(on_file.exponent), Some(follows.exponent));
        let points = |worth: &Worth| -> Vec<String> {
            let runs = worth.points.iter().flat_map(|point| {
                point.runs.iter().zip(&point.bpb).map(|(run, bpb)| format!("{run} {}", shown(Some(*bpb))))
            });
            runs.collect()
        };
        if points(on_file) != points(follows) {
            self.differs(place, "the law is fitted to other runs or scores than those that follow");
        }
        let rungs = |worth: &Worth| worth.rungs.iter().map(|it| (it.rung, it.compute)).collect::<Vec<_>>();
        let alike = |(a, b): (&(u64, Factor), &(u64, Factor))| a.0 == b.0 && same_factor(&a.1, &b.1);
        let (ours, theirs) = (rungs(on_file), rungs(follows));
        let trend = match (&on_file.trend, &follows.trend) {
            (Some(a), Some(b)) => same_factor(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if ours.len() != theirs.len() || !ours.iter().zip(&theirs).all(alike) || !trend {
            let words = |rungs: &[(u64, Factor)]| {
                let factors = rungs.iter().map(|(_, it)| format!("{:.4}x", it.value));
                factors.collect::<Vec<_>>().join(", ")
            };
            let (ours, theirs) = (words(&ours), words(&theirs));
            self.differs(
                place,
                format!("worth in compute is {ours}, {theirs} follows, or its interval differs"),
            );
        }
    }
}

fn same_factor(a: &Factor, b: &Factor) -> bool {
    let high = match (a.high, b.high) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    same(a.value, b.value) && same(a.low, b.low) && high
}
