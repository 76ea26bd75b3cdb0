//! Dials, knobs and choices: what may be turned without touching the text.

use crate::context::context;
use crate::error::{Refusal, raise, raise_with, refuse, refuse_with};
use crate::values::{describe, items, number};
use pawl_record::{SettingValue, Settings};
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::{Heap, Value};

/// What a setting may be set to.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingKind {
    /// A size or word that a person sets and no researcher tunes; `depth` is the dial of the scale ladder.
    Dial,
    /// A number in a range; a whole number if its default is [`SettingValue::Int`].
    Knob {
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
        /// Whether it is natural to search its logarithm.
        log: bool,
    },
    /// One of a list.
    Choice {
        /// The list.
        options: Vec<SettingValue>,
    },
}

/// Largest whole number of a dial.
const MAX_DIAL: i64 = 1 << 32;

/// A dial, knob or choice as declared, with the value it has now.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Name, as in `--set name=value`.
    pub name: String,
    /// What it may be set to.
    pub kind: SettingKind,
    /// Value in the text.
    pub default: SettingValue,
    /// Value in force.
    pub value: SettingValue,
    /// One line on what it does; may be empty.
    pub doc: String,
}

/// Settings declared so far and the values asked for by the caller.
pub(crate) struct Registry {
    pub(crate) declared: Vec<Setting>,
    depth: Option<u64>,
    values: Settings,
}

impl Registry {
    pub(crate) fn new(depth: Option<u64>, values: Settings) -> Registry {
        Registry { declared: Vec::new(), depth, values }
    }

    /// The value in force of a declaration; the same name twice must be the same declaration.
    fn declare(&mut self, mut setting: Setting) -> Result<SettingValue, Refusal> {
        if let Some(known) = self.declared.iter().find(|known| known.name == setting.name) {
            if known.kind == setting.kind && known.default == setting.default {
                return Ok(known.value.clone());
            }
            return refuse(format!("`{}` is declared twice with different ranges or defaults", setting.name));
        }
        check_value(&setting, &setting.default).map_err(|refusal| Refusal {
            because: format!("the default of {}", refusal.because),
            ..refusal
        })?;
        let from_depth = self
            .depth
            .filter(|_| setting.name == "depth")
            .map(|d| SettingValue::Int(i64::try_from(d).unwrap_or(i64::MAX)));
        if let Some(asked) = from_depth.or_else(|| self.values.get(&setting.name).cloned()) {
            setting.value = check_value(&setting, &asked)?;
        }
        let value = setting.value.clone();
        self.declared.push(setting);
        Ok(value)
    }

    /// Refuses an override that no declaration took, naming those that exist.
    pub(crate) fn check_overrides(&self) -> Result<(), Refusal> {
        let known: Vec<&str> = self.declared.iter().map(|setting| setting.name.as_str()).collect();
        let asked = self.values.keys().map(String::as_str).chain(self.depth.map(|_| "depth"));
        for name in asked {
            if !known.contains(&name) {
                let list = if known.is_empty() { "none".to_string() } else { known.join(", ") };
                let hint = match crate::words::nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`? settings: {list}"),
                    None => format!("settings: {list}"),
                };
                return refuse_with(format!("this recipe has no setting `{name}`"), hint);
            }
        }
        Ok(())
    }
}

/// The value as the setting stores it: a whole number given to a knob of real numbers becomes a float.
fn check_value(setting: &Setting, value: &SettingValue) -> Result<SettingValue, Refusal> {
    let name = &setting.name;
    match &setting.kind {
        SettingKind::Dial => check_dial(setting, value),
        SettingKind::Knob { low, high, .. } => {
            let Some(number) = value.as_f64() else {
                return refuse(format!("knob `{name}` needs a number, got {value}"));
            };
            if !(*low..=*high).contains(&number) {
                return refuse(format!("knob `{name}` must be between {low} and {high}, got {number}"));
            }
            match setting.default {
                SettingValue::Int(_) if number.fract() == 0.0 => Ok(SettingValue::Int(number as i64)),
                SettingValue::Int(_) => refuse(format!("knob `{name}` needs a whole number, got {number}")),
                SettingValue::Float(_) | SettingValue::Bool(_) | SettingValue::Text(_) => {
                    Ok(SettingValue::Float(number))
                }
            }
        }
        SettingKind::Choice { options } => {
            let same = |option: &&SettingValue| match (option.as_f64(), value.as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => *option == value,
            };
            match options.iter().find(same) {
                Some(option) => Ok(option.clone()),
                None => {
                    let list: Vec<String> = options.iter().map(ToString::to_string).collect();
                    refuse_with(
                        format!("choice `{name}` cannot be {value}"),
                        format!("options: {}", list.join(", ")),
                    )
                }
            }
        }
    }
}

/// A dial keeps the type of its default; counts stay positive.
fn check_dial(setting: &Setting, value: &SettingValue) -> Result<SettingValue, Refusal> {
    let name = &setting.name;
    match (&setting.default, value) {
        (SettingValue::Int(default), SettingValue::Int(number)) => {
            let least = i64::from(*default >= 1 || name == "depth");
            if *number < least || *number > MAX_DIAL {
                return refuse(format!(
                    "dial `{name}` must be a whole number from {least} to {MAX_DIAL}, got {number}"
                ));
            }
            Ok(value.clone())
        }
        (SettingValue::Float(_), number) if number.as_f64().is_some_and(f64::is_finite) => {
            Ok(SettingValue::Float(number.as_f64().unwrap_or_default()))
        }
        (SettingValue::Text(_), SettingValue::Text(_)) | (SettingValue::Bool(_), SettingValue::Bool(_)) => {
            Ok(value.clone())
        }
        (SettingValue::Int(_), other) => refuse(format!("dial `{name}` needs a whole number, got {other}")),
        (SettingValue::Float(_), other) => refuse(format!("dial `{name}` needs a number, got {other}")),
        (SettingValue::Text(_), other) => refuse(format!("dial `{name}` needs a word, got {other}")),
        (SettingValue::Bool(_), other) => refuse(format!("dial `{name}` needs True or False, got {other}")),
    }
}

fn setting_value(value: Value<'_>, what: &str) -> Result<SettingValue, Refusal> {
    if let Some(flag) = value.unpack_bool() {
        return Ok(SettingValue::Bool(flag));
    }
    if let Some(text) = value.unpack_str() {
        return Ok(SettingValue::Text(text.to_string()));
    }
    if value.get_type() == "int" {
        let text = value.to_str();
        return match text.parse() {
            Ok(int) => Ok(SettingValue::Int(int)),
            Err(_) => refuse(format!("{what}: {text} does not fit 64 bits")),
        };
    }
    match crate::values::as_number(value) {
        Some(float) if float.is_finite() => Ok(SettingValue::Float(float)),
        Some(float) => refuse(format!("{what} must be finite, got {float:?}")),
        None => refuse(format!("{what} must be a bool, number or string, got {}", describe(value))),
    }
}

fn to_starlark<'v>(value: &SettingValue, heap: Heap<'v>) -> Value<'v> {
    match value {
        SettingValue::Bool(flag) => Value::new_bool(*flag),
        SettingValue::Int(int) => heap.alloc(*int),
        SettingValue::Float(float) => heap.alloc(*float),
        SettingValue::Text(text) => heap.alloc(text.as_str()),
    }
}

fn declare<'v>(eval: &Evaluator<'v, '_, '_>, setting: Setting) -> starlark::Result<Value<'v>> {
    let fine = setting.name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if setting.name.is_empty() || !fine || setting.name.len() > 100 {
        return raise(format!(
            "`{}` is not a name for a setting: letters, digits and _ . - only",
            setting.name
        ));
    }
    let value = context(eval).settings.borrow_mut().declare(setting)?;
    Ok(to_starlark(&value, eval.heap()))
}

#[starlark_module]
pub(crate) fn settings(builder: &mut GlobalsBuilder) {
    fn dial<'v>(
        #[starlark(require = pos)] name: &str,
        #[starlark(require = pos)] default: Value<'v>,
        #[starlark(default = "")] doc: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let default = setting_value(default, "the default of a dial")?;
        let setting = Setting {
            name: name.to_string(),
            kind: SettingKind::Dial,
            value: default.clone(),
            default,
            doc: doc.to_string(),
        };
        declare(eval, setting)
    }

    fn knob<'v>(
        #[starlark(require = pos)] name: &str,
        #[starlark(require = pos)] default: Value<'v>,
        #[starlark(require = named)] low: Value<'v>,
        #[starlark(require = named)] high: Value<'v>,
        #[starlark(require = named, default = "linear")] scale: &str,
        #[starlark(require = named, default = "")] doc: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let (low, high) = (number(low, "low")?, number(high, "high")?);
        let whole = default.get_type() == "int" && low.fract() == 0.0 && high.fract() == 0.0;
        let default = number(default, "the default of a knob")?;
        let default = if whole { SettingValue::Int(default as i64) } else { SettingValue::Float(default) };
        let log = match scale {
            "log" => true,
            "linear" => false,
            other => {
                return raise_with(
                    format!("knob `{name}`: scale \"{other}\" is unknown"),
                    "scale is \"log\" or \"linear\"",
                );
            }
        };
        if !(low.is_finite() && high.is_finite() && low < high) {
            return raise(format!("knob `{name}`: low {low} must be below high {high}"));
        }
        if log && low <= 0.0 {
            return raise(format!("knob `{name}`: a log scale needs low above 0, got {low}"));
        }
        let setting = Setting {
            name: name.to_string(),
            kind: SettingKind::Knob { low, high, log },
            value: default.clone(),
            default,
            doc: doc.to_string(),
        };
        declare(eval, setting)
    }

    fn choice<'v>(
        #[starlark(require = pos)] name: &str,
        #[starlark(require = pos)] options: Value<'v>,
        default: Option<Value<'v>>,
        #[starlark(default = "")] doc: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let Some(listed) = items(options).filter(|list| !list.is_empty()) else {
            return raise(format!("choice `{name}` needs a list of options"));
        };
        let options: Vec<SettingValue> =
            listed.iter().map(|option| setting_value(*option, "an option")).collect::<Result<_, _>>()?;
        let default = match default {
            Some(value) => setting_value(value, "the default of a choice")?,
            None => options[0].clone(),
        };
        let setting = Setting {
            name: name.to_string(),
            kind: SettingKind::Choice { options },
            value: default.clone(),
            default,
            doc: doc.to_string(),
        };
        declare(eval, setting)
    }
}
