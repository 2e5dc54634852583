//! Our calendar expressions beside the real `systemd-analyze calendar` (Debian package `systemd`).

use std::process::Command;

use afterhours::scheduler::calendar::Calendar;
use chrono::DateTime;
use chrono::NaiveDateTime;
use chrono::TimeDelta;
use chrono::Utc;
use chrono_tz::Tz;
use rstest::rstest;

/// What systemd says of an expression: its normal form and its next times; nothing when it refuses it.
fn systemd(text: &str, zone: Tz, base: &str, times: usize) -> Option<(String, Vec<String>)> {
    let expression = if zone == Tz::UTC { text.to_owned() } else { format!("{text} {zone}") };
    let output = Command::new("systemd-analyze")
        .args(["calendar", &format!("--iterations={times}"), &format!("--base-time={base} UTC"), &expression])
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("systemd-analyze runs (Debian package systemd)");
    if !output.status.success() {
        return None;
    }
    let stdout = String::from_utf8(output.stdout).expect("text");
    let value = |line: &str| line.split_once(": ").map(|(_, value)| value.trim().to_owned());
    let normal = stdout.lines().find(|line| line.contains("Normalized form")).or_else(|| stdout.lines().next());
    let normal = normal.and_then(value)?.trim_end_matches(&format!(" {zone}")).to_owned();
    let times = stdout.lines().filter(|line| line.contains("Next elapse") || line.contains("Iter. #"));
    let times = times.filter_map(value).filter(|at| at != "never");
    Some((normal, times.map(|at| at.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ")).collect()))
}

fn ours(text: &str, zone: Tz, base: &str, times: usize) -> Option<(String, Vec<String>)> {
    let calendar = Calendar::parse(text).ok()?;
    let base: DateTime<Utc> = NaiveDateTime::parse_from_str(base, "%Y-%m-%d %H:%M:%S").unwrap().and_utc();
    let found = std::iter::successors(calendar.next_after(base, zone), |at| calendar.next_after(*at, zone));
    Some((calendar.to_string(), found.take(times).map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).collect()))
}

#[rstest]
#[case::the_second_tuesday("Tue *-*-8..14 02:30")]
#[case::working_days("Mon..Fri 22:00")]
#[case::the_first_of_a_month("*-*-1 03:00")]
#[case::the_weekend("Sat,Sun *-*-* 04:00:00")]
#[case::old_weekday_range("Mon-Fri 22:00")]
#[case::weekdays_in_disorder("Sat,Mon,Tue,Wed 22:00")]
#[case::all_weekdays("Mon..Sun 22:00")]
#[case::weekdays_twice("Sun,Mon..Fri,Mon 1:00")]
#[case::long_names("MONDAY,wednesday 0:0")]
#[case::trailing_comma("Wed, 17:48")]
#[case::only_weekdays("Mon,Tue")]
#[case::only_a_date("*-*-*")]
#[case::month_and_day("03-05")]
#[case::a_year("2027-03-05")]
#[case::two_digits_of_a_year("27-03-05")]
#[case::years("2026..2030/2-1-1")]
#[case::every_other_year("2027/2-02-28 1:00")]
#[case::leap_days("*-02-29")]
#[case::leap_days_in_a_range("*-02-29..31")]
#[case::repeated_leap_years("2000/4-02-29")]
#[case::last_day("*-*~1 03:00")]
#[case::last_three_days("*-*~1..3")]
#[case::some_last_days("*-*~5,2")]
#[case::last_days_repeated("*-*~7/2")]
#[case::last_days_in_steps("*-*~1..7/2")]
#[case::last_monday_of_may("Mon *-05~07/1")]
#[case::the_28th_last("*-2~28")]
#[case::days_repeated("*-*-2..29/9 5:00")]
#[case::list_of_months("1,3,2,2-15")]
#[case::range_of_days("1-1..3 2:00")]
#[case::quarters_of_an_hour("*:0/15")]
#[case::uneven_minutes("*:7/11")]
#[case::once_repeated("*:0..40/40")]
#[case::seconds("*:*:0/20")]
#[case::every_second("*:*:*")]
#[case::given_seconds("05:40:23")]
#[case::hours_in_steps("8..18/3:30")]
#[case::range_shorter_than_its_step("1..3/5:0")]
#[case::range_of_one("12..12:0")]
#[case::range_with_step_one("8..10/1:0")]
#[case::repetition_with_step_one("0/1:0")]
#[case::full_range("0..23:0..59:0..59")]
#[case::mixed("Mon..Fri *-*-* 1..5/2,20:0,30:15")]
#[case::equal_start("3/2,3:0")]
#[case::contained("3,1..5:0")]
#[case::minute_range("08:05..10:30")]
#[case::minutely("minutely")]
#[case::hourly("Hourly")]
#[case::daily("daily")]
#[case::weekly("weekly")]
#[case::monthly("monthly")]
#[case::quarterly("quarterly")]
#[case::semiannually("semiannually")]
#[case::yearly("yearly")]
#[case::annually("annually")]
fn an_expression_means_what_systemd_says(#[case] text: &str) {
    for base in ["2026-01-01 00:00:00", "2027-02-27 23:59:59", "2026-12-31 13:07:30"] {
        let (ours, theirs) = (ours(text, Tz::UTC, base, 5), systemd(text, Tz::UTC, base, 5));
        assert!(ours.is_some(), "{text} is refused");
        assert_eq!(ours, theirs, "{text} after {base}");
    }
}

/// systemd's text has no five words, so that cron and systemd are never mistaken for each other.
#[rstest]
#[case("")]
#[case("*")]
#[case("2027")]
#[case("noon")]
#[case("thurs 1:00")]
#[case("Fri..Mon 22:00")]
#[case("Mon,,Tue 1:00")]
#[case("Mon Tue 1:00")]
#[case("Mon,Tue,1:00")]
#[case("Mon*-*-* 1:00")]
#[case("22:00 Mon")]
#[case("1:0 1-1")]
#[case("*-13-1")]
#[case("*-0-1")]
#[case("*-*-0")]
#[case("*-*-32")]
#[case("*-*-25..5")]
#[case("*-*~29")]
#[case("*-2~29")]
#[case("*-*~7/7")]
#[case("*-*~1/1")]
#[case("*-*~3..1")]
#[case("*-02-~03")]
#[case("1969-1-1")]
#[case("2200-1-1")]
#[case("100-1-1")]
#[case("24:00")]
#[case("1:60")]
#[case("1:00:60")]
#[case("1:2:3:4")]
#[case("*:0/60")]
#[case("*:0/0")]
#[case("*:*/15")]
#[case("*:5..3")]
#[case("1/2/3:0")]
#[case("1..2..3:0")]
#[case("1,:0")]
#[case(",1:0")]
#[case("..2:0")]
#[case("/2:0")]
#[case("+1:00")]
#[case("-1:00")]
#[case("*,1:0")]
#[case("**:0")]
#[case("1 :00")]
#[case("*-*-*1:00")]
#[case("2026-11-21T02:30")]
#[case("1-2-3-4")]
#[case("*-*-1,15,L")]
fn what_systemd_refuses_is_refused(#[case] text: &str) {
    assert_eq!(systemd(text, Tz::UTC, "2026-01-01 00:00:00", 1), None, "{text:?}");
    assert_eq!(ours(text, Tz::UTC, "2026-01-01 00:00:00", 1), None, "{text:?}");
}

#[rstest]
#[case::before_the_gap("01:59:59", "2026-03-27 00:00:00")]
#[case::after_the_gap("03:00", "2026-03-27 00:00:00")]
#[case::first_in_the_overlap("02:00", "2026-10-23 00:00:00")]
#[case::in_the_overlap("02:30", "2026-10-23 00:00:00")]
#[case::after_the_overlap("03:00", "2026-10-23 00:00:00")]
#[case::repeated_in_the_overlap("*:0/15", "2026-10-24 23:30:00")]
#[case::repeated_over_the_gap("*:0/15", "2026-03-29 00:20:00")]
#[case::weekly_over_both("Sun 12:00", "2026-03-20 00:00:00")]
#[case::last_sunday("Sun *-*~7/1 01:00", "2026-01-01 00:00:00")]
fn zones_agree(
    #[case] text: &str,
    #[case] base: &str,
    #[values(
        Tz::Europe__Berlin,
        Tz::America__New_York,
        Tz::Australia__Lord_Howe,
        Tz::Asia__Kathmandu,
        Tz::Pacific__Apia
    )]
    zone: Tz,
) {
    let (ours, theirs) = (ours(text, zone, base, 12), systemd(text, zone, base, 12));
    assert_eq!(ours, theirs, "{text} {zone} after {base}");
}

/// On purpose: systemd leaves out a time that does not exist, we run at the first instant after the gap. Everything else
/// of the two lists is the same.
#[rstest]
#[case::berlin("02:30", Tz::Europe__Berlin, "2026-03-27 12:00:00", "2026-03-29 01:00:00")]
#[case::berlin_monthly("*-*-29 02:00", Tz::Europe__Berlin, "2026-03-01 00:00:00", "2026-03-29 01:00:00")]
#[case::new_york("02:30", Tz::America__New_York, "2026-03-06 12:00:00", "2026-03-08 07:00:00")]
#[case::half_an_hour("02:10", Tz::Australia__Lord_Howe, "2026-10-02 00:00:00", "2026-10-03 15:30:00")]
#[case::a_day_left_out("*-12-30 12:00", Tz::Pacific__Apia, "2011-01-01 00:00:00", "2011-12-30 10:00:00")]
fn a_time_in_a_gap_runs_after_it(#[case] text: &str, #[case] zone: Tz, #[case] base: &str, #[case] shifted: &str) {
    let (_, ours) = ours(text, zone, base, 5).expect("read");
    let (_, theirs) = systemd(text, zone, base, 5).expect("read");
    assert!(!theirs.contains(&shifted.to_owned()), "systemd has changed its mind: {theirs:?}");
    assert!(ours.contains(&shifted.to_owned()), "{ours:?}");
    let mut without = ours.clone();
    without.retain(|at| at != shifted);
    assert_eq!(without, theirs[..without.len()]);
}

/// Expressions that nobody thought of, drawn from the grammar by a fixed sequence.
#[test]
fn made_up_expressions_mean_what_systemd_says() {
    let mut state = 0x2026_1121_u64;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut refused = 0;
    for _ in 0..120 {
        let (from_end, days, hours) = (draw(3) == 0, draw(4) as usize, draw(600_000) as i64);
        let mut part = |min: u64, max: u64| match draw(6) {
            0 | 1 => "*".to_owned(),
            2 => format!("{}", min + draw(max - min + 2)),
            3 => format!("{}..{}", min + draw((max - min) / 2), min + (max - min) / 2 + draw((max - min) / 2 + 1)),
            4 => format!("{}/{}", min + draw((max - min) / 2), 1 + draw((max - min) / 2)),
            _ => format!("{},{}..{}/2", min + draw(max - min), min, min + 1 + draw(max - min)),
        };
        let (month, hour, minute) = (part(1, 12), part(0, 23), part(0, 59));
        let (day, tilde) = if from_end { (part(1, 28), '~') } else { (part(1, 31), '-') };
        let days = ["", "Mon..Fri ", "Sat ", "Tue,Thu "][days];
        let text = format!("{days}*-{month}{tilde}{day} {hour}:{minute}");
        let base = (DateTime::UNIX_EPOCH + TimeDelta::hours(hours)).format("%Y-%m-%d %H:%M:%S").to_string();
        let theirs = systemd(&text, Tz::UTC, &base, 3).filter(|(_, times)| !times.is_empty());
        refused += u32::from(theirs.is_none());
        assert_eq!(ours(&text, Tz::UTC, &base, 3), theirs, "{text} after {base}");
    }
    assert!(refused < 60, "most of them are sound: {refused} of 120 were refused");
}
