//! The recipes and the standard library that travel in the binary.

/// Name and text of each file.
const FILES: &[(&str, &str)] = &[
    ("tiny.star", include_str!("../../../recipes/tiny.star")),
    ("nano.star", include_str!("../../../recipes/nano.star")),
    ("llama.star", include_str!("../../../recipes/llama.star")),
    ("std/attention.star", include_str!("../std/attention.star")),
    ("std/layers.star", include_str!("../std/layers.star")),
    ("std/lessons/sft.star", include_str!("../std/lessons/sft.star")),
    ("std/lessons/rl.star", include_str!("../std/lessons/rl.star")),
    ("std/lessons/rejection.star", include_str!("../std/lessons/rejection.star")),
    ("std/moe.star", include_str!("../std/moe.star")),
    ("std/objectives.star", include_str!("../std/objectives.star")),
    ("std/optim.star", include_str!("../std/optim.star")),
    ("std/schedule.star", include_str!("../std/schedule.star")),
];

/// The text of a shipped file: a recipe such as `tiny.star` or `tiny`, or a library file such as `std/layers.star`.
pub fn shipped(name: &str) -> Option<&'static str> {
    let with_ending = format!("{name}.star");
    FILES.iter().find(|(file, _)| *file == name || *file == with_ending).map(|(_, text)| *text)
}

/// Names of the shipped recipes.
pub fn shipped_recipes() -> Vec<&'static str> {
    FILES.iter().map(|(file, _)| *file).filter(|file| !file.starts_with("std/")).collect()
}

pub(crate) fn std_names() -> Vec<&'static str> {
    FILES.iter().map(|(file, _)| *file).filter(|file| file.starts_with("std/")).collect()
}

/// A loader that knows the standard library and asks `rest` for everything else.
pub fn with_std<'a>(
    rest: impl Fn(&str) -> Result<String, String> + 'a,
) -> impl Fn(&str) -> Result<String, String> + 'a {
    move |name| {
        if name.starts_with("std/") {
            return match shipped(name) {
                Some(text) => Ok(text.to_string()),
                None => Err("the standard library has no such file".to_string()),
            };
        }
        rest(name)
    }
}

/// A loader that knows the standard library only.
pub fn std_only(name: &str) -> Result<String, String> {
    with_std(|_: &str| Err("only the standard library can be loaded".to_string()))(name)
}
