//! The edit library: small changes to a recipe's text, for researchers that cannot write one.
//!
//! The entries stand in `edits.toml`, each with where it was reported to help and where not. An edit fits a text when
//! each of its steps finds its place exactly once. Which edit made a proposal is not recorded but recognised: the same
//! steps on the same text give the same text.

use pawl_record::Category;
use serde::Deserialize;
use std::sync::LazyLock;

/// One entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// What it is called.
    pub name: String,
    /// Kind of change.
    pub category: Category,
    /// Why it should help, one sentence.
    pub why: String,
    /// Where it was reported to help.
    pub helped: String,
    /// Where it was reported not to, or can be expected not to.
    pub did_not: String,
    /// What is done to the text, in order.
    pub steps: Vec<Step>,
}

/// One replacement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Must occur exactly once.
    pub find: String,
    /// What stands there afterwards.
    pub replace: String,
}

#[derive(Deserialize)]
struct Library {
    edit: Vec<Edit>,
}

/// All entries, in the order of the file.
pub fn library() -> &'static [Edit] {
    static LIBRARY: LazyLock<Vec<Edit>> = LazyLock::new(|| {
        let library: Library =
            toml::from_str(include_str!("../edits.toml")).expect("a test reads the library");
        library.edit
    });
    &LIBRARY
}

impl Edit {
    /// The text with this edit, or `None` where a step does not fit or the edit is there already.
    pub fn apply(&self, text: &str) -> Option<String> {
        if self.steps.iter().all(|step| text.contains(&step.replace)) {
            return None;
        }
        self.steps.iter().try_fold(text.to_string(), |text, step| {
            let mut places = text.match_indices(&step.find);
            let (at, _) = places.next()?;
            if places.next().is_some() {
                return None;
            }
            Some([&text[..at], &step.replace, &text[at + step.find.len()..]].concat())
        })
    }
}

/// The edit that makes `after` of `before`.
pub fn recognise(before: &str, after: &str) -> Option<&'static Edit> {
    library().iter().find(|edit| edit.apply(before).is_some_and(|text| text == after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(steps: &[(&str, &str)]) -> Edit {
        let step = |(find, replace): &(&str, &str)| Step { find: (*find).into(), replace: (*replace).into() };
        Edit {
            name: "e".into(),
            category: Category::Architecture,
            why: String::new(),
            helped: String::new(),
            did_not: String::new(),
            steps: steps.iter().map(step).collect(),
        }
    }

    #[test]
    fn an_edit_fits_where_every_step_finds_one_place() {
        assert_eq!(edit(&[("b", "x"), ("xc", "y")]).apply("abcd").as_deref(), Some("ayd"));
        assert_eq!(edit(&[("b", "x")]).apply("abcb"), None);
        assert_eq!(edit(&[("b", "x"), ("q", "y")]).apply("abcd"), None);
    }

    #[test]
    fn every_entry_has_a_name_of_its_own_and_words_for_all_fields() {
        for (at, edit) in library().iter().enumerate() {
            assert!(
                library()[..at].iter().all(|other| other.name != edit.name),
                "{} is there twice",
                edit.name
            );
            for words in [&edit.why, &edit.helped, &edit.did_not] {
                assert!(words.len() > 10, "{}: {words:?}", edit.name);
            }
            assert!(!edit.steps.is_empty() && edit.category.is_text(), "{}", edit.name);
        }
    }

    #[test]
    fn every_entry_fits_the_starting_recipe_and_is_recognised_in_it() {
        let tiny = include_str!("../../../recipes/tiny.star");
        for edit in library() {
            let after = edit.apply(tiny).unwrap_or_else(|| panic!("{} fits no longer", edit.name));
            assert_eq!(recognise(tiny, &after).map(|found| &found.name), Some(&edit.name));
            // Once done it cannot be done again.
            assert_eq!(edit.apply(&after), None, "{}", edit.name);
        }
    }
}
