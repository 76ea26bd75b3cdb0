//! The arguments of a call, as models really write them.

use super::words::line;
use pawl_record::{SettingValue, Settings};
use serde_json::{Map, Value};

/// Arguments by name.
pub(super) type Arguments = Map<String, Value>;

/// The arguments as an object; some servers hand over their text.
pub(super) fn object(arguments: &Value) -> Result<Arguments, String> {
    match arguments {
        Value::Object(map) => Ok(map.clone()),
        Value::Null => Ok(Arguments::new()),
        Value::String(text) if text.trim().is_empty() => Ok(Arguments::new()),
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(other) => Err(format!("arguments must be a JSON object, got {}", kind(&other))),
            Err(why) => Err(format!("arguments are not JSON: {why}; they may have been cut off")),
        },
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            Err(format!("arguments must be a JSON object, got {}", kind(other)))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(super) fn text<'a>(arguments: &'a Arguments, name: &str) -> Result<Option<&'a str>, String> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{name} must be a string, got {}", kind(other))),
    }
}

/// A number, or a string that is one.
pub(super) fn number(arguments: &Arguments, name: &str) -> Result<Option<f64>, String> {
    let number = match arguments.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().trim_start_matches('#').parse().ok(),
        Some(_) => None,
    };
    match number.filter(|number| number.is_finite()) {
        Some(number) => Ok(Some(number)),
        None => Err(format!("{name} must be a number")),
    }
}

pub(super) fn settings(arguments: &Arguments) -> Result<Settings, String> {
    let map = match arguments.get("settings") {
        None | Some(Value::Null) => return Ok(Settings::new()),
        Some(Value::Object(map)) => map.clone(),
        Some(text @ Value::String(_)) => object(text)?,
        Some(other) => {
            return Err(format!("settings must be an object of values by name, got {}", kind(other)));
        }
    };
    map.iter()
        .map(|(name, value)| {
            let value = match value {
                Value::Bool(value) => SettingValue::Bool(*value),
                Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                    (Some(int), _) => SettingValue::Int(int),
                    (None, Some(float)) if float.is_finite() => SettingValue::Float(float),
                    (None, _) => return Err(format!("setting {}: {number} is out of range", line(name, 60))),
                },
                Value::String(text) => SettingValue::parse(text),
                other @ (Value::Null | Value::Array(_) | Value::Object(_)) => {
                    return Err(format!("setting {} cannot be {}", line(name, 60), kind(other)));
                }
            };
            Ok((name.clone(), value))
        })
        .collect()
}
