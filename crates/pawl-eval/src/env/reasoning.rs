//! Puzzles: sorting, edits of letters, people in a row.

use super::{Draws, Judge, Problem};

fn words<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

/// `sort 7 3 12`: difficulty + 2 different numbers below 20 (more when there are more numbers).
pub(super) fn sort(draws: &mut Draws, difficulty: u32) -> Problem {
    let size = difficulty.clamp(1, 48) as usize + 2;
    let mut all: Vec<u32> = (0..(2 * size as u32).max(20)).collect();
    draws.shuffle(&mut all);
    let mut numbers = all[..size].to_vec();
    let prompt = format!("sort {}", words(&numbers));
    numbers.sort_unstable();
    let sorted = words(&numbers);
    Problem {
        key: format!("sort {sorted}"),
        prompt,
        demonstration: Some(sorted.clone()),
        judge: Judge::Words(sorted),
    }
}

/// `reverse a b c` and the like on difficulty + 2 letters.
pub(super) fn edit(draws: &mut Draws, difficulty: u32) -> Problem {
    let size = difficulty.clamp(1, 48) as usize + 2;
    let letters: Vec<char> = (0..size).map(|_| char::from(b'a' + draws.below(8) as u8)).collect();
    // Of letters that are all the same nothing would be left to say.
    let same = letters.iter().all(|letter| *letter == letters[0]);
    let (prompt, answer) = match draws.below(if same { 3 } else { 4 }) {
        0 => (format!("reverse {}", words(&letters)), letters.iter().rev().copied().collect()),
        1 => (format!("rotate {}", words(&letters)), [&letters[1..], &letters[..1]].concat()),
        2 => (format!("double {}", words(&letters)), letters.iter().flat_map(|c| [*c, *c]).collect()),
        _ => {
            let gone = letters[draws.below(size as u64) as usize];
            let left: Vec<char> = letters.iter().copied().filter(|c| *c != gone).collect();
            (format!("drop {gone} from {}", words(&letters)), left)
        }
    };
    let answer: Vec<char> = answer;
    Problem {
        key: format!("edit {prompt}"),
        prompt,
        demonstration: Some(words(&answer)),
        judge: Judge::Words(words(&answer)),
    }
}

/// `C before A, B before C`: difficulty + 2 people, the clues in any order, one order that fits.
pub(super) fn order(draws: &mut Draws, difficulty: u32) -> Problem {
    let size = difficulty.clamp(1, 10) as usize + 2;
    let mut people: Vec<char> = (0..26u8).map(|k| char::from(b'A' + k)).collect();
    draws.shuffle(&mut people);
    people.truncate(size);
    let mut clues: Vec<String> =
        people.windows(2).map(|pair| format!("{} before {}", pair[0], pair[1])).collect();
    draws.shuffle(&mut clues);
    let answer = words(&people);
    Problem {
        key: format!("order {answer}"),
        prompt: clues.join(", "),
        demonstration: Some(answer.clone()),
        judge: Judge::Words(answer),
    }
}
