//! One page on what a recipe may say, for whoever writes one without having read this crate: a person, or a
//! language model. Names and parameters come from the functions themselves, so that the page cannot fall behind;
//! a test holds that each has its line of meaning here.

use crate::values::Tensor;
use starlark::docs::{DocFunction, DocItem, DocMember, DocParam};
use starlark::environment::{Globals, GlobalsBuilder, Methods};
use starlark::typing::Ty;
use starlark::values::StarlarkValue;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What each function does. Shapes as in the standard library: B sequences, T positions, C width, H heads, D head
/// width, V vocabulary.
const MEANINGS: &[(&str, &[(&str, &str)])] = &[
    (
        "Declaring",
        &[
            (
                "recipe",
                "once, at the top level: the whole recipe. model(tokens (B, T)) -> logits (B, T, V); optimizer(p) -> update(w, g, s) -> (new w, {name: new state}); loss(tokens, targets) -> (), which calls the model itself, defaults to its cross-entropy; lr_multiplier(t) -> number; mixture {domain: weight}; packing best_fit or crop",
            ),
            ("dial", "the one number the scale ladder turns: depth"),
            ("knob", "a number that may be turned; scale linear or log"),
            ("choice", "one of several options that may be turned; the first is the default"),
            ("vocab_size", "V, inside functions"),
            ("seq_len", "T, inside functions"),
            ("is_training", "whether this trace is the training one"),
        ],
    ),
    (
        "Parameters and initial values",
        &[
            ("param", "a trainable tensor; the same name is the same tensor"),
            ("zeros", "init: 0"),
            ("ones", "init: 1"),
            ("constant", "init: one value"),
            ("normal", "init: normal with that standard deviation"),
            ("uniform", "init: uniform on [-bound, bound], or [low, high]"),
            ("values", "init: these numbers"),
        ],
    ),
    (
        "Elementwise, on tensors and numbers (beside + - * / % and comparison by ge, eq)",
        &[
            ("exp", "e^x"),
            ("log", "natural logarithm"),
            ("sqrt", "square root"),
            ("rsqrt", "1 / sqrt(x)"),
            ("reciprocal", "1 / x"),
            ("tanh", "hyperbolic tangent"),
            ("sigmoid", "1 / (1 + e^-x)"),
            ("relu", "max(x, 0)"),
            ("erf", "error function, tensors only"),
            ("sin", "sine"),
            ("cos", "cosine"),
            ("floor", "largest whole number not above"),
            ("to_float", "whole numbers as float32"),
            ("abs", "absolute value"),
            ("maximum", "the larger"),
            ("minimum", "the smaller"),
            ("pow", "a to the power of b"),
            ("ge", "1 where a >= b, else 0"),
            ("eq", "1 where a = b, else 0"),
            ("round", "of a number, to even"),
            ("pi", "3.14159..."),
        ],
    ),
    (
        "Tensors",
        &[
            ("matmul", "product of the last two axes, ta and tb transpose; axes before are batch"),
            ("gather", "rows of table (R, ..) at whole-number ids (..): ids must lie in 0..R"),
            ("rms_norm", "x at unit root mean square over the last axis"),
            ("softmax", "over the last axis; causal for scores (.., T, T)"),
            ("rope", "rotary positions on x (B, T, H, D)"),
            (
                "attend",
                "attention of q (B, T, H, D) over k, v (B, T, K, D), K divides H; window counts back from t",
            ),
            ("concat", "along an axis"),
            ("pad", "zeros before and after along an axis"),
            ("shift", "x moved n positions later along axis 1, zeros in front: the causal way to look back"),
            ("scan", "h_t = decay_t h_(t-1) + x_t over axis 1, both (B, T, C)"),
            ("top_k", "0/1 mask of the k largest over the last axis"),
            ("dropout", "in training: zero at that rate, rest scaled up"),
            ("detach", "the value without its gradient"),
            ("iota", "0, 1, .., n - 1 as whole numbers"),
            ("full", "a constant tensor"),
            ("cross_entropy", "mean over targets >= 0 of logits (.., V)"),
            ("token_losses", "cross-entropy of each target (B, T), 0 where it is ignored"),
        ],
    ),
];

/// What the attributes and methods of a tensor do.
const METHODS: &[(&str, &str)] = &[
    ("shape", "tuple of extents"),
    ("ndim", "number of axes"),
    ("reshape", "-1 for one extent"),
    ("expand", "repeat axes of extent 1"),
    ("transpose", "by an order of axes; the last two without one"),
    ("slice", "x.slice(axis, start, stop); negative counts from the end, None is the end"),
    ("sum", "over an axis, a tuple of axes, or all"),
    ("mean", "over an axis, a tuple of axes, or all"),
    ("max", "over an axis, a tuple of axes, or all"),
    ("square", "x * x"),
    ("heads", "(B, T, C) -> (B, T, n, C / n)"),
    ("merge_heads", "(B, T, H, D) -> (B, T, H D)"),
];

/// What the arguments of an optimizer and of a schedule offer; methods of the three are few and stable.
const HANDLES: &str = "\
In an optimizer: p.name, p.shape, p.ndim; s.state(name, shape) is a tensor kept between steps, its new value in
what update returns; s.lr_multiplier is the schedule's value now, s.schedule(f) that of another function. In a schedule: t.step, t.num_steps, t.progress.";

fn own_globals() -> Globals {
    GlobalsBuilder::new()
        .with(crate::settings::settings)
        .with(crate::declare::declaration)
        .with(crate::init::inits)
        .with(crate::ops::elementwise_functions)
        .with(crate::ops::functions)
        .build()
}

/// Name and how it is called.
type Signatures = BTreeMap<String, String>;

fn global_signatures() -> Signatures {
    let module = own_globals().documentation();
    module.members.iter().map(|(name, item)| (name.clone(), signature(name, item))).collect()
}

fn method_signatures() -> Signatures {
    let methods: &Methods = <Tensor as StarlarkValue<'_>>::get_methods().expect("a tensor has methods");
    let members = methods.documentation(Ty::any()).members;
    let line = |name: &str, member: &DocMember| match member {
        DocMember::Property(_) => name.to_string(),
        DocMember::Function(function) => called(name, function),
    };
    members.iter().map(|(name, member)| (name.clone(), line(name, member))).collect()
}

fn signature(name: &str, item: &DocItem) -> String {
    match item {
        DocItem::Member(DocMember::Function(function)) => called(name, function),
        DocItem::Member(DocMember::Property(_)) | DocItem::Module(_) | DocItem::Type(_) => name.to_string(),
    }
}

fn called(name: &str, function: &DocFunction) -> String {
    let params = &function.params;
    let one = |param: &DocParam| match &param.default_value {
        Some(value) => format!("{} = {value}", param.name),
        None => param.name.clone(),
    };
    let mut shown: Vec<String> = params.pos_only.iter().chain(&params.pos_or_named).map(one).collect();
    shown.extend(params.args.iter().map(|args| format!("*{}", args.name)));
    if params.args.is_none() && !params.named_only.is_empty() {
        shown.push("*".to_string());
    }
    shown.extend(params.named_only.iter().map(one));
    format!("{name}({})", shown.join(", "))
}

/// The page: declarations, operations, methods, and the functions of the standard library.
pub fn reference() -> &'static str {
    static PAGE: OnceLock<String> = OnceLock::new();
    PAGE.get_or_init(page)
}

fn page() -> String {
    let (globals, methods) = (global_signatures(), method_signatures());
    let mut page = String::new();
    for (section, lines) in MEANINGS {
        page.push_str(&format!("{section}:\n"));
        for (name, meaning) in *lines {
            page.push_str(&format!("  {} -- {meaning}\n", globals.get(*name).map_or(*name, |line| line)));
        }
    }
    page.push_str("Of a tensor:\n");
    for (name, meaning) in METHODS {
        page.push_str(&format!("  .{} -- {meaning}\n", methods.get(*name).map_or(*name, |line| line)));
    }
    page.push_str(HANDLES);
    page.push_str("\nStandard library, by load(\"FILE\", \"NAME\", ...):\n");
    // What lessons after pretraining minimise is no part of a recipe.
    for file in crate::shipped::std_names().into_iter().filter(|file| !file.contains("lessons/")) {
        let functions: Vec<String> =
            library_functions(crate::shipped::shipped(file).expect("a named file is shipped"))
                .into_iter()
                .map(|(signature, meaning)| format!("  {signature} -- {meaning}\n"))
                .collect();
        page.push_str(&format!("{file}\n{}", functions.concat()));
    }
    page
}

/// Public functions of a library file: how each is called, and the first sentence of what it says of itself.
fn library_functions(text: &str) -> Vec<(String, String)> {
    let mut functions = Vec::new();
    for part in text.split("\ndef ").skip(1).filter(|part| !part.starts_with('_')) {
        let Some((head, body)) = part.split_once("):\n") else { continue };
        let words: Vec<&str> = head.split_whitespace().collect();
        let signature = format!("{})", words.join(" ").replace("( ", "(").trim_end_matches(','));
        let said = body.trim_start().strip_prefix("\"\"\"").and_then(|rest| rest.split_once("\"\"\""));
        let said =
            said.map_or(String::new(), |(said, _)| said.split_whitespace().collect::<Vec<_>>().join(" "));
        functions.push((signature, first_sentence(&said).trim_end_matches('.').to_string()));
    }
    functions
}

/// Up to a full stop before a capital letter: "et al. 2018" goes on.
fn first_sentence(text: &str) -> &str {
    let ends = |at: &usize| text[at + 2..].starts_with(|c: char| c.is_ascii_uppercase());
    let end = text.match_indices(". ").map(|(at, _)| at).find(ends);
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_and_method_has_its_line_and_no_other_has() {
        let mut known: Vec<&str> =
            MEANINGS.iter().flat_map(|(_, lines)| *lines).map(|(name, _)| *name).collect();
        known.sort_unstable();
        assert_eq!(known, global_signatures().keys().map(String::as_str).collect::<Vec<_>>());
        let mut known: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        known.sort_unstable();
        assert_eq!(known, method_signatures().keys().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn the_page_shows_how_things_are_called() {
        let page = reference();
        println!("{page}");
        for line in [
            "  shift(x, n, axis = ...) -- ",
            "  .slice(along, start, stop) -- ",
            "  knob(name, default, *, low, high, scale = \"linear\", doc = \"\") -- ",
            "  hashed_bigrams(tokens, name, width, rows, init = None) -- ",
        ] {
            assert!(page.contains(line), "{line}");
        }
        assert!(!page.contains("_running_sum"));
        assert!(page.lines().all(|line| line.len() < 600), "a line is too long");
    }
}
