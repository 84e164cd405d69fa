use super::appointments::{Appointments, Clock};
use super::*;

/// Europe/Berlin: 02:00 becomes 03:00 on 2026-03-29, and 03:00 becomes 02:00 on 2026-10-25.
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
/// Australia/Lord_Howe: changes by half an hour, on 2026-04-05 and 2026-10-04.
const LORD_HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";

fn times(expression: &str, rule: &str) -> Times {
    Times::new(expression, &Zone::Rule(rule.into())).expect("it is good")
}

/// The next runs after a time in UTC, in the time of the zone, without the year and the seconds.
fn runs(expression: &str, rule: &str, after: &str, number: usize) -> Vec<String> {
    let times = times(expression, rule);
    let mut at = instant(after);
    let next = || {
        at = times.next(at)?;
        let shown = times.show(at).to_string();
        Some(format!("{} {}", &shown[5..16], &shown[20..]))
    };
    std::iter::from_fn(next).take(number).collect()
}

fn instant(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

#[test]
fn a_step_larger_than_its_range_is_refused() {
    for (wrong, most) in [
        ("*/70 * * * *", 59),
        ("0 1,2-5/24 * * *", 23),
        ("*/60 * * * * *", 59),
        ("0 0 */32 * *", 31),
    ] {
        let said = parse(wrong).expect_err(wrong);
        assert!(
            said.contains(&format!("is larger than {most}, so it would")),
            "{said}"
        );
    }
    for good in ["*/59 */23 * * *", "*/30 * * * * *", "0 0 1 */12 *"] {
        assert!(parse(good).is_ok(), "{good}");
    }
}

#[test]
fn the_next_time_comes_after_the_given_one() {
    let next = |after: &str| times("*/5 * * * *", "UTC0").next(instant(after));
    assert_eq!(
        next("2026-11-27T01:04:59.9Z"),
        Some(instant("2026-11-27T01:05:00Z"))
    );
    assert_eq!(
        next("2026-11-27T01:05:00Z"),
        Some(instant("2026-11-27T01:10:00Z"))
    );
    assert_eq!(
        next("2026-11-27T01:05:00.1Z"),
        Some(instant("2026-11-27T01:10:00Z"))
    );
    assert_eq!(
        next("2026-12-31T23:58:00Z"),
        Some(instant("2027-01-01T00:00:00Z"))
    );
}

#[test]
fn an_expression_means_what_crontab_says() {
    for (expression, expected) in [
        ("@hourly", "11-27 02:00"),
        ("@daily", "11-28 00:00"),
        ("@weekly", "11-29 00:00"),
        ("@monthly", "12-01 00:00"),
        ("@yearly", "01-01 00:00"),
        ("30 2 * * mon-wed,sat", "11-28 02:30"),
        ("0 9-17/4 * * *", "11-27 09:00"),
        // Either day, if both are given.
        ("0 0 13 * fri", "12-04 00:00"),
        ("0 0 29 2 *", "02-29 00:00"),
        ("0 0 * * 7", "11-29 00:00"),
        ("0 0 l * *", "11-30 00:00"),
    ] {
        let found = runs(expression, "UTC0", "2026-11-27T01:00:00Z", 1);
        assert_eq!(found, [format!("{expected} +00:00")], "{expression}");
    }
    let second = times("*/10 * * * * *", "UTC0").next(instant("2026-11-27T01:00:01Z"));
    assert_eq!(second, Some(instant("2026-11-27T01:00:10Z")));
}

#[test]
fn a_fixed_time_that_is_missing_comes_at_once_after_the_change() {
    let found = runs("30 2 * * *", BERLIN, "2026-03-28T00:00:00Z", 3);
    assert_eq!(
        found,
        [
            "03-28 02:30 +01:00",
            "03-29 03:00 +02:00",
            "03-30 02:30 +02:00"
        ]
    );
    // Several are one, also with one that is not missing.
    let found = runs("0,15,30 2,3 * * *", BERLIN, "2026-03-29T00:59:00Z", 3);
    assert_eq!(
        found,
        [
            "03-29 03:00 +02:00",
            "03-29 03:15 +02:00",
            "03-29 03:30 +02:00"
        ]
    );
    let found = runs("10 2 * * *", LORD_HOWE, "2026-10-03T00:00:00Z", 2);
    assert_eq!(found, ["10-04 02:30 +11:00", "10-05 02:10 +11:00"]);
}

#[test]
fn a_fixed_time_that_is_repeated_comes_once() {
    let found = runs("30 2 * * *", BERLIN, "2026-10-24T12:00:00Z", 2);
    assert_eq!(found, ["10-25 02:30 +02:00", "10-26 02:30 +01:00"]);
    // Also when it is asked for in the repeated hour.
    let found = runs("30 2,3 * * *", BERLIN, "2026-10-25T01:10:00Z", 1);
    assert_eq!(found, ["10-25 03:30 +01:00"]);
    let found = runs("45 1 * * *", LORD_HOWE, "2026-04-04T12:00:00Z", 2);
    assert_eq!(found, ["04-05 01:45 +11:00", "04-06 01:45 +10:30"]);
    let found = runs("0 3 * * *", BERLIN, "2026-10-24T12:00:00Z", 1);
    assert_eq!(found, ["10-25 03:00 +01:00"], "this hour exists once");
}

#[test]
fn a_frequent_schedule_follows_real_time() {
    let found = runs("*/30 * * * *", BERLIN, "2026-10-25T00:15:00Z", 5);
    assert_eq!(
        found,
        [
            "10-25 02:30 +02:00",
            "10-25 02:00 +01:00",
            "10-25 02:30 +01:00",
            "10-25 03:00 +01:00",
            "10-25 03:30 +01:00"
        ]
    );
    let found = runs("@hourly", BERLIN, "2026-03-29T00:30:00Z", 2);
    assert_eq!(found, ["03-29 03:00 +02:00", "03-29 04:00 +02:00"]);
    let found = runs("*/20 2 * * *", BERLIN, "2026-03-28T02:00:00Z", 1);
    assert_eq!(
        found,
        ["03-30 02:00 +02:00"],
        "as with cron, its hour is missing"
    );
}

#[test]
fn no_time_is_lost_or_repeated_over_years() {
    // Minutes of every local day, however the clock is changed.
    for rule in [BERLIN, LORD_HOWE, "EST5EDT,M3.2.0,M11.1.0", "UTC0"] {
        let daily = times("30 2 * * *", rule);
        let (mut at, end) = (
            instant("2026-01-01T12:00:00Z"),
            instant("2029-01-01T12:00:00Z"),
        );
        let mut number = 0;
        while let Some(next) = daily.next(at).filter(|next| *next <= end) {
            let hours = next.duration_since(at).as_secs_f64() / 3600.0;
            assert!(
                number == 0 || (23.0..=25.0).contains(&hours),
                "{rule}: {hours} hours"
            );
            (at, number) = (next, number + 1);
        }
        assert_eq!(number, 3 * 365 + 1, "{rule}");
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_an_example() {
    for (expression, part) in [
        ("", "has 0 fields, not five"),
        ("* * * *", "has 4 fields, not five"),
        ("* * * * * * *", "has 7 fields"),
        ("60 * * * *", "60"),
        ("* * * * mond", "not a schedule"),
        ("*/0 * * * *", "not a schedule"),
        ("5-1 * * * *", "not a schedule"),
        ("@reboot", "write one of @hourly"),
        ("every day", "has 2 fields"),
        ("0 0 30 2 *", "never comes"),
        ("Überall * * * *", "not a schedule"),
    ] {
        let error = parse(expression).expect_err(expression);
        assert!(error.contains(part), "{error}");
    }
    let error = Times::new("@daily", &Zone::Rule("nowhere".into())).err();
    assert!(error.is_some_and(|error| error.contains("\"nowhere\" is not a time zone")));
}

fn clock(wall: &str, uptime: u64) -> Clock {
    Clock {
        wall: instant(wall),
        uptime: Duration::from_secs(uptime),
    }
}

use std::time::Duration;

#[test]
fn a_sleep_is_no_change_of_the_clock() {
    let before = clock("2026-11-27T01:00:00Z", 100);
    let slept = clock("2026-11-27T09:00:00Z", 100 + 8 * 3600);
    assert_eq!(slept.was_set_since(&before), SignedDuration::ZERO);
    let forward = clock("2026-11-27T02:00:10Z", 110);
    assert_eq!(
        forward.was_set_since(&before),
        SignedDuration::from_hours(1)
    );
    let back = clock("2026-11-27T00:00:10Z", 110);
    assert_eq!(back.was_set_since(&before), SignedDuration::from_hours(-1));
}

#[test]
fn many_missed_runs_are_one() {
    let mut all = Appointments::new(
        times("*/5 * * * *", "UTC0"),
        instant("2026-11-27T01:01:00Z"),
    );
    assert_eq!(all.take_due(instant("2026-11-27T01:04:59Z")), None);
    let due = all
        .take_due(instant("2026-11-27T09:02:00Z"))
        .expect("it is late");
    assert_eq!(due.at, instant("2026-11-27T01:05:00Z"));
    assert_eq!(due.late, Duration::from_secs(8 * 3600 - 180));
    assert_eq!(all.take_due(instant("2026-11-27T09:02:00Z")), None);
    assert_eq!(all.next(), Some(instant("2026-11-27T09:05:00Z")));
}

#[test]
fn a_clock_that_is_set_back_repeats_frequent_runs_only() {
    let now = instant("2026-11-27T02:45:00Z");
    let by = SignedDuration::from_hours(-1);
    let back = instant("2026-11-27T01:45:00Z");
    let mut frequent = Appointments::new(times("*/5 * * * *", "UTC0"), now);
    frequent.clock_was_set(by, back);
    assert_eq!(frequent.next(), Some(instant("2026-11-27T01:50:00Z")));
    let mut fixed = Appointments::new(times("30 2 * * *", "UTC0"), now);
    fixed.clock_was_set(by, back);
    assert_eq!(fixed.next(), Some(instant("2026-11-28T02:30:00Z")));
    // A correction counts for all.
    fixed.clock_was_set(
        SignedDuration::from_hours(-4),
        instant("2026-11-26T22:45:00Z"),
    );
    assert_eq!(fixed.next(), Some(instant("2026-11-27T02:30:00Z")));
}

#[test]
fn a_clock_that_is_corrected_forward_makes_up_for_nothing() {
    let mut daily = Appointments::new(times("@daily", "UTC0"), instant("1970-01-01T00:00:30Z"));
    let now = instant("2026-11-27T01:00:00Z");
    daily.clock_was_set(now.duration_since(instant("1970-01-01T00:00:31Z")), now);
    assert_eq!(daily.take_due(now), None);
    assert_eq!(daily.next(), Some(instant("2026-11-28T00:00:00Z")));
    // By less, it does.
    let now = instant("2026-11-28T01:00:00Z");
    daily.clock_was_set(SignedDuration::from_hours(2), now);
    assert!(daily.take_due(now).is_some());
}
