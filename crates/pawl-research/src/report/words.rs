//! Numbers and names as the report writes them.

use crate::plots::is_treacherous;
use pawl_record::{Change, Proposal, SettingValue};

/// The change of a proposal in one line.
pub(super) fn change_line(proposal: &Proposal) -> String {
    let mut parts: Vec<String> = proposal.changes.iter().map(setting_line).collect();
    if let Some(recipe) = &proposal.recipe {
        parts.push(format!("recipe text {}", plain(&recipe.name)));
    }
    if parts.is_empty() { "no change".into() } else { parts.join(", ") }
}

fn setting_line(change: &Change) -> String {
    format!("{}: {} → {}", plain(&change.setting), value(&change.from), value(&change.to))
}

/// A setting's value, numbers to four significant digits.
pub(super) fn value(value: &SettingValue) -> String {
    match value {
        SettingValue::Float(float) => significant(*float, 4),
        SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Text(_) => plain(&value.to_string()),
    }
}

/// Text from a recipe or a researcher in one line: control characters would break a table or a terminal.
pub(super) fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || is_treacherous(c));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// At most `digits` significant digits, without trailing zeros.
pub(super) fn significant(number: f64, digits: usize) -> String {
    if number == 0.0 || !number.is_finite() {
        return format!("{number}");
    }
    let magnitude = number.abs().log10().floor() as i32;
    if !(-4..=5).contains(&magnitude) {
        let text = format!("{number:.*e}", digits - 1);
        let (mantissa, exponent) = text.split_once('e').expect("written with an exponent");
        return format!("{}e{exponent}", trim_zeros(mantissa));
    }
    let decimals = (digits as i32 - 1 - magnitude).max(0) as usize;
    trim_zeros(&format!("{number:.decimals$}")).to_string()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// A score, bits per byte.
pub(super) fn bpb(score: f64) -> String {
    format!("{score:.4}")
}

/// A gain with its sign, bits per byte.
pub(super) fn gain(gain: f64) -> String {
    // A typographic minus is as wide as a plus, so that columns line up.
    format!("{gain:+.4}").replace('-', "−")
}

/// A gain with the half-width of its interval.
pub(super) fn gain_with_interval(mean: f64, half_width: f64) -> String {
    if half_width.is_finite() {
        format!("{} ± {half_width:.4}", gain(mean))
    } else {
        format!("{} ± ∞", gain(mean))
    }
}

/// A large count with an SI prefix and a unit: `3.2 TFLOP`.
pub(super) fn si(number: f64, unit: &str) -> String {
    let steps =
        [(1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (scale, prefix) = steps.into_iter().find(|(scale, _)| number.abs() >= *scale).unwrap_or((1.0, ""));
    let unit = format!("{prefix}{unit}");
    format!("{} {unit}", significant(number / scale, 3)).trim_end().to_string()
}

/// An e-value: whole numbers where they are large.
pub(super) fn e_value(e: f64) -> String {
    if e >= 1e4 {
        format!("{e:.1e}")
    } else if e >= 10.0 {
        format!("{e:.0}")
    } else {
        significant(e, 2)
    }
}

/// Seconds as a person says them.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.0} s");
    }
    let minutes = seconds / 60.0;
    if minutes < 10.0 {
        format!("{minutes:.1} min")
    } else if minutes < 120.0 {
        format!("{minutes:.0} min")
    } else {
        format!("{:.1} h", minutes / 60.0)
    }
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", significant(share * 100.0, 2))
}

/// `1 run`, `2 runs`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A moment in UTC, from seconds since 1970 (proleptic Gregorian calendar, Hinnant's days-to-civil).
pub(super) fn utc(unix_s: u64) -> String {
    let days = (unix_s / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (unix_s / 3_600 % 24, unix_s / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_writes_them() {
        assert_eq!(significant(0.034567, 4), "0.03457");
        assert_eq!(significant(2.0, 4), "2");
        assert_eq!(significant(123_456.0, 3), "123456");
        assert_eq!(significant(1.5e-7, 4), "1.5e-7");
        assert_eq!(gain(-0.01), "−0.0100");
        assert_eq!(gain_with_interval(0.02, f64::INFINITY), "+0.0200 ± ∞");
        assert_eq!(si(3.21e14, "FLOP"), "321 TFLOP");
        assert_eq!(si(840_000.0, ""), "840 k");
        assert_eq!(si(12.0, "FLOP"), "12 FLOP");
        assert_eq!(duration(59.0), "59 s");
        assert_eq!(duration(2_460.0), "41 min");
        assert_eq!(duration(9_000.0), "2.5 h");
        assert_eq!(percent(0.05), "5 %");
        assert_eq!(count(1, "run"), "1 run");
    }

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_795_361_461), "2026-11-22 15:31 UTC");
    }

    #[test]
    fn text_of_others_becomes_one_line() {
        assert_eq!(plain(" a\n\tb\u{1b}[31m  c "), "a b [31m c");
    }
}
