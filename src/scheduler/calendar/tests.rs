//! What is compared with the real `systemd-analyze` stands in `tests/it/calendar.rs`; here is what it cannot say.

use chrono::TimeDelta;
use chrono::Timelike;
use chrono_tz::America::New_York;
use chrono_tz::Australia::Lord_Howe;
use chrono_tz::Europe::Berlin;
use chrono_tz::Pacific::Apia;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::scheduler::resolve::ResolvedKind;

fn utc(text: &str) -> DateTime<Utc> {
    format!("{}Z", text.replace(' ', "T")).parse().unwrap()
}

fn starts(text: &str, zone: Tz, after: &str, times: usize) -> Vec<String> {
    let calendar = Calendar::parse(text).unwrap();
    let next = |at: &DateTime<Utc>| calendar.next_after(*at, zone);
    let found = std::iter::successors(next(&utc(after)), next).take(times);
    found.map(|at| at.format("%m-%d %H:%M:%S").to_string()).collect()
}

#[rstest]
#[case::gap_of_an_hour("02:30", Berlin, "2026-03-28 12:00:00", &["03-29 01:00:00", "03-30 00:30:00"])]
#[case::gap_cron("30 2 * * *", Berlin, "2026-03-28 12:00:00", &["03-29 01:00:00", "03-30 00:30:00"])]
#[case::gap_in_america("02:30", New_York, "2026-03-07 12:00:00", &["03-08 07:00:00", "03-09 06:30:00"])]
#[case::gap_of_half_an_hour("02:15", Lord_Howe, "2026-10-03 00:00:00", &["10-03 15:30:00", "10-04 15:15:00"])]
#[case::gap_of_a_day("*-12-30 04:00", Apia, "2011-12-01 00:00:00", &["12-30 10:00:00", "12-29 14:00:00"])]
#[case::a_gap_is_one_start("*:0/20", Berlin, "2026-03-29 00:30:00", &["03-29 00:40:00", "03-29 01:00:00", "03-29 01:20:00"])]
#[case::overlap_runs_first("02:30", Berlin, "2026-10-24 12:00:00", &["10-25 00:30:00", "10-26 01:30:00"])]
#[case::overlap_cron("30 2 * * *", Berlin, "2026-10-24 12:00:00", &["10-25 00:30:00", "10-26 01:30:00"])]
#[case::overlap_from_inside("02:30", Berlin, "2026-10-25 01:10:00", &["10-26 01:30:00"])]
#[case::overlap_of_half_an_hour("01:45", Lord_Howe, "2026-04-04 00:00:00", &["04-04 14:45:00", "04-05 15:15:00"])]
#[case::overlap_repeated("*:0/30", Berlin, "2026-10-25 00:00:00", &["10-25 00:30:00", "10-25 02:00:00", "10-25 02:30:00"])]
#[case::every_second_in_an_overlap("*:*:*", Berlin, "2026-10-25 00:59:58", &["10-25 00:59:59", "10-25 02:00:00"])]
fn daylight_saving(#[case] text: &str, #[case] zone: Tz, #[case] after: &str, #[case] expected: &[&str]) {
    assert_eq!(starts(text, zone, after, expected.len()), expected);
}

#[rstest]
#[case::either_day_is_enough("0 3 13 * 5", &["01-02 03:00:00", "01-09 03:00:00", "01-13 03:00:00"])]
#[case::only_the_day_of_the_week("0 3 * * 5", &["01-02 03:00:00", "01-09 03:00:00"])]
#[case::only_the_day_of_the_month("0 3 13 * *", &["01-13 03:00:00", "02-13 03:00:00"])]
#[case::names("15 22 * jan-feb mon-wed", &["01-05 22:15:00", "01-06 22:15:00", "01-07 22:15:00"])]
#[case::steps("*/20 4 * * *", &["01-01 04:00:00", "01-01 04:20:00", "01-01 04:40:00", "01-02 04:00:00"])]
#[case::star_with_step_and_weekday("0 3 */2 * 1", &["01-05 03:00:00", "01-19 03:00:00", "02-09 03:00:00"])]
#[case::weekday_that_begins_with_a_star("0 0 13 * */2", &["01-13 00:00:00", "06-13 00:00:00", "08-13 00:00:00"])]
#[case::the_first_monday("0 3 */100,1-7 * MON", &["01-05 03:00:00", "02-02 03:00:00", "03-02 03:00:00"])]
#[case::full_names("15 22 * January,march Monday-tuesday", &["01-05 22:15:00", "01-06 22:15:00", "01-12 22:15:00"])]
#[case::word("@daily", &["01-02 00:00:00", "01-03 00:00:00"])]
#[case::word_for_sunday("@Weekly", &["01-04 00:00:00", "01-11 00:00:00"])]
#[case::sunday_is_also_seven("0 0 * * 7", &["01-04 00:00:00", "01-11 00:00:00"])]
fn cron_fields(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(starts(text, Tz::UTC, "2026-01-01 00:00:00", expected.len()), expected);
}

#[test]
fn both_days_and_either_day_are_told_apart() {
    let says = |text: &str| Calendar::parse(text).unwrap().describe();
    assert!(says("0 3 */2 * 1").ends_with("(if it is also Monday)"));
    assert!(says("0 3 */100,1-7 * MON").ends_with("(if it is also Monday)"));
    assert!(!says("0 3 13 * 5").contains("also"));
}

#[rstest]
#[case("")]
#[case("*-2-30")]
#[case("*-4-31 02:00")]
#[case("1970-1-1 0:0")]
#[case("30 2 30 2 *")]
#[case("30 2 * *")]
#[case("61 2 * * *")]
#[case("99 99 99 99 99")]
#[case("*:*/15")]
#[case("Fri..Mon 22:00")]
#[case("Mon,,Tue 22:00")]
#[case("02:30 Europe/Berlin")]
#[case("UTC")]
#[case("25:00")]
#[case("*-*~29 03:00")]
#[case("nightly")]
#[case("@reboot")]
#[case("22:00 Mon")]
#[case("*-*-* 22:00 extra")]
#[case("2026-11-21T02:30")]
#[case("02:30:15.5")]
#[case("4294967295..4294967296:0")]
#[case("0/4294967295:0")]
fn refused(#[case] text: &str) {
    let error = Calendar::parse(text).unwrap_err();
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn errors_say_what_is_wrong() {
    let says = |text: &str| Calendar::parse(text).unwrap_err().to_string();
    let texts = ["25:00", "5..3:00", "*:0/60", "*:*/15", "Fri..Mon 1:00", "1:00 Asia/Tokyo", "*-2-30", "1 2 3", ""];
    insta::assert_snapshot!(texts.map(says).join("\n"), @r#"
    read the calendar expression "25:00": "25" is no hour from 0 to 23
    read the calendar expression "5..3:00": "5..3" ends before it begins
    read the calendar expression "*:0/60": "0/60" never repeats
    read the calendar expression "*:*/15": "*" takes no repetition
    read the calendar expression "Fri..Mon 1:00": "Fri..Mon" are no days of the week, Monday first
    read the calendar expression "1:00 Asia/Tokyo": the zone "Asia/Tokyo" does not belong in it
    find any time that matches the calendar expression "*-2-30"
    read the calendar expression "1 2 3": "1" is no date
    read the calendar expression "": it is empty
    "#);
}

#[test]
fn an_expression_is_said_in_words() {
    let texts = [
        "Tue *-*-8..14 02:30",
        "Mon..Fri 22:00",
        "Sat,Sun 4:00:30",
        "*-*~1 03:00",
        "*-*~1..3 03:00",
        "*-1,7-1/7 5:00",
        "2027-03-05 6:00",
        "*-12-* 6:00",
        "daily",
        "hourly",
        "minutely",
        "*:0/15",
        "8..18/2:30",
        "*:*:0/20",
        "Mon *:0/7",
        "30 2 * * 2",
        "*/20 4 1-7 * 5",
    ];
    let said = texts.map(|text| format!("{text:<20} {}", Calendar::parse(text).unwrap().describe()));
    insta::assert_snapshot!(said.join("\n"), @r"
    Tue *-*-8..14 02:30  on Tue, on day 8 to 14 of every month, at 02:30
    Mon..Fri 22:00       on Mon to Fri, at 22:00
    Sat,Sun 4:00:30      on Sat, Sun, at 04:00:30
    *-*~1 03:00          on the last day of every month, at 03:00
    *-*~1..3 03:00       on day 1 to 3 from the end of every month, at 03:00
    *-1,7-1/7 5:00       on day 1 and every 7 after it of January, July, at 05:00
    2027-03-05 6:00      on day 5 of March, in 2027, at 06:00
    *-12-* 6:00          every day, in December, at 06:00
    daily                every day, at 00:00
    hourly               every hour
    minutely             every minute
    *:0/15               every 15 minutes
    8..18/2:30           every day, at hour 8 to 18 by 2, minute 30
    *:*:0/20             at every hour, every minute, second 0 and every 20 after it
    Mon *:0/7            on Mon, at every hour, minute 0 and every 7 after it
    30 2 * * 2           At 02:30, on Tuesday
    */20 4 1-7 * 5       At every 20 minutes, of hour 4, on day 1-7 or Friday
    ");
}

#[test]
fn a_long_text_is_refused_before_it_is_looked_at() {
    let text = "1,".repeat(TEXT_BYTES_MAX);
    assert!(matches!(Calendar::parse(&text), Err(CalendarError::Syntax { problem: Syntax::TooLong, .. })));
}

#[test]
fn an_expression_that_has_ended_has_no_next_start() {
    assert_eq!(starts("2026-03-05 02:00", Tz::UTC, "2026-03-05 01:59:59", 3), ["03-05 02:00:00"]);
    let last = Calendar::parse("*-12-31 23:59:59").unwrap();
    assert_eq!(last.next_after(utc("2199-12-31 23:59:59"), Tz::UTC), None);
}

#[test]
fn rare_days_are_found() {
    // A 29th of February on a Monday: 28 years apart, forty over the year 2100.
    let rare = Calendar::parse("Mon *-2-29").unwrap();
    assert_eq!(rare.next_after(utc("2072-03-01 00:00:00"), Tz::UTC), Some(utc("2112-02-29 00:00:00")));
}

#[test]
fn a_fraction_of_a_second_is_after_its_second() {
    let at = Calendar::parse("*:*:*").unwrap().next_after(utc("2026-01-01 00:00:00.999"), Tz::UTC);
    assert_eq!(at, Some(utc("2026-01-01 00:00:01")));
}

/// systemd 252 passes over the first value when a repetition without an end steps over the end of its period.
#[rstest]
#[case("*-*-2/9 5:00", "2026-12-31 13:07:30", &["01-02 05:00:00", "01-11 05:00:00"])]
#[case("*:0/40", "2027-02-27 23:59:59", &["02-28 00:00:00", "02-28 00:40:00"])]
fn a_repetition_begins_anew_in_each_period(#[case] text: &str, #[case] after: &str, #[case] expected: &[&str]) {
    assert_eq!(starts(text, Tz::UTC, after, expected.len()), expected);
}

/// A list of values of one place, as text and as the set it means.
fn place(min: u32, max: u32, width: usize) -> impl Strategy<Value = (String, Vec<u32>)> {
    prop_oneof![
        Just(("*".to_owned(), (min..=max).collect())),
        (min..=max).prop_map(move |value| (format!("{value:0width$}"), vec![value])),
        (min..max)
            .prop_flat_map(move |a| (Just(a), a + 1..=max))
            .prop_map(|(a, b)| (format!("{a}..{b}"), (a..=b).collect())),
        (min..max)
            .prop_flat_map(move |a| (Just(a), 1..=max - a))
            .prop_map(move |(a, step)| { (format!("{a}/{step}"), (a..=max).step_by(step as usize).collect()) }),
        proptest::collection::vec(min..=max, 2..4)
            .prop_map(|values| { (values.iter().map(u32::to_string).collect::<Vec<_>>().join(","), values) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_next_start_is_later_matches_and_is_the_first(
        days in proptest::sample::select(vec!["", "Mon..Fri ", "Sat,Sun ", "Tue "]),
        (month, months) in place(1, 12, 2),
        (day, month_days) in place(1, 28, 2),
        (hour, hours) in place(0, 23, 2),
        (minute, minutes) in place(0, 59, 2),
        second in 0_i64..60,
        after_secs in 1_750_000_000_i64..1_900_000_000,
        zone in proptest::sample::select(vec![Tz::UTC, Berlin, New_York, Lord_Howe]),
    ) {
        let text = format!("{days}*-{month}-{day} {hour}:{minute}:{second:02}");
        let calendar = Calendar::parse(&text).unwrap();
        prop_assert_eq!(&Calendar::parse(&calendar.to_string()).unwrap(), &calendar, "its normal form means the same");

        let after = DateTime::from_timestamp(after_secs, 0).unwrap();
        let matches = |local: NaiveDateTime| {
            let weekday = local.weekday().num_days_from_monday();
            let right_day = match days { "" => true, "Tue " => weekday == 1, "Sat,Sun " => weekday >= 5, _ => weekday < 5 };
            right_day
                && months.contains(&local.month())
                // "25/2" may go on beyond the 28th.
                && (month_days.contains(&local.day()) || local.day() > 28)
                && hours.contains(&local.hour())
                && minutes.contains(&local.minute())
                && i64::from(local.second()) == second
        };
        let Some(next) = calendar.next_resolved(after, zone) else {
            return Err(TestCaseError::fail("every such expression goes on until 2199"));
        };
        prop_assert!(next.at > after);
        let local = next.at.with_timezone(&zone).naive_local();
        match next.kind {
            ResolvedKind::Gap { shifted_to_local } => prop_assert_eq!(local, shifted_to_local),
            _ => prop_assert!(matches(local), "{} is not in {}", local, text),
        }
        // Asking from anywhere before the answer gives the answer.
        let between = after + (next.at - after) / 2;
        prop_assert_eq!(calendar.next_after(between, zone), Some(next.at));
        // And no minute of the hours before was overlooked.
        let overlooked = (1..600)
            .map(|minutes| next.at - TimeDelta::minutes(minutes))
            .take_while(|at| *at > after)
            .find(|at| {
                let local = at.with_timezone(&zone).naive_local();
                matches(local) && local.day() <= 28 && resolve_local(local, zone).at == *at
            });
        prop_assert_eq!(overlooked, None, "{}", text);
    }
}
