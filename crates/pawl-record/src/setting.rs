//! The value of a dial, a knob or a choice.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Values by setting name, in name order.
pub type Settings = BTreeMap<String, SettingValue>;

/// What a dial, knob or choice may be set to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SettingValue {
    /// `True` or `False` in a recipe.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number; never NaN.
    Float(f64),
    /// A string, usually one option of a choice.
    Text(String),
}

impl SettingValue {
    /// Reads `--set name=value` text: `true`/`True`, a whole number, a real number, otherwise text.
    pub fn parse(text: &str) -> SettingValue {
        match text {
            "true" | "True" => return SettingValue::Bool(true),
            "false" | "False" => return SettingValue::Bool(false),
            _ => {}
        }
        if let Ok(int) = text.parse::<i64>() {
            return SettingValue::Int(int);
        }
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() => SettingValue::Float(float),
            _ => SettingValue::Text(text.to_string()),
        }
    }

    /// The number, if this is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            SettingValue::Int(int) => Some(*int as f64),
            SettingValue::Float(float) => Some(*float),
            SettingValue::Bool(_) | SettingValue::Text(_) => None,
        }
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingValue::Bool(true) => f.write_str("True"),
            SettingValue::Bool(false) => f.write_str("False"),
            SettingValue::Int(int) => write!(f, "{int}"),
            // `{:?}` keeps the point of a whole float and every digit: the text reads back as the same value.
            SettingValue::Float(float) => write!(f, "{float:?}"),
            SettingValue::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_reads_back_as_the_same_value() {
        for value in [
            SettingValue::Bool(true),
            SettingValue::Int(-3),
            SettingValue::Float(0.1),
            SettingValue::Float(2.0),
            SettingValue::Float(1e-30),
            SettingValue::Text("gelu".into()),
        ] {
            assert_eq!(SettingValue::parse(&value.to_string()), value);
        }
    }
}
