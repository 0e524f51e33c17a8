//! What a provider's health comes to, whatever happens to it in whatever order.

use super::*;
use proptest::prelude::*;

fn refused() -> HealthEvent {
    HealthEvent::Unreachable(Cause::ConnectionRefused, "connection refused".into())
}

fn event() -> impl Strategy<Value = HealthEvent> {
    prop_oneof![
        Just(HealthEvent::Reached),
        Just(HealthEvent::CheckPassed),
        Just(refused()),
        Just(HealthEvent::Unreachable(Cause::LoginRefused, "535".into())),
        Just(HealthEvent::CheckFailed(Cause::Tls, "bad certificate".into())),
        Just(HealthEvent::CheckFailed(Cause::LoginRefused, "535".into())),
        Just(HealthEvent::Held(Quota::Rate, "451 4.7.500".into())),
    ]
}

proptest! {
    #[test]
    fn a_circuit_opens_only_by_deliveries_in_a_row_and_closes_at_the_first_success(
        events in prop::collection::vec(event(), 0..60), count in 0u16..=10,
    ) {
        let intervals = HealthIntervals::default();
        let mut health = Health::default();
        let mut in_a_row = 0u16;
        let mut now = Time(1_000_000);
        for event in events {
            let before = health.clone();
            health = before.after(&event, count, intervals, now);
            match event {
                HealthEvent::Reached | HealthEvent::CheckPassed => {
                    in_a_row = 0;
                    prop_assert!(health.is_closed());
                    prop_assert_eq!(health.healthy, Some(true));
                }
                HealthEvent::Unreachable(..) => in_a_row += 1,
                HealthEvent::CheckFailed(..) => {
                    prop_assert_eq!(before.is_closed(), health.is_closed());
                }
                HealthEvent::Held(..) => {
                    if matches!(before.last_failure, Some((Cause::ConnectionRefused, _))) {
                        in_a_row = 0;
                    }
                    let closes = !before.is_closed() && health.is_closed();
                    let healthy = if closes { Some(true) } else { before.healthy };
                    prop_assert_eq!(health.healthy, healthy);
                    prop_assert!(!closes || health.last_failure.is_none());
                    prop_assert!(health.is_closed() || !before.is_closed());
                }
            }
            prop_assert_eq!(!health.is_closed(), in_a_row > count);
            prop_assert!(health.next_check >= before.next_check || health.next_check > now);
            prop_assert!(health.next_check <= now.plus(Health::LOGIN_WAIT_MAX));
            now = now.plus(Duration::from_secs(7));
        }
    }
}

#[test]
fn an_open_circuit_is_probed_after_one_second_then_twice_as_long_up_to_the_interval() {
    let intervals = HealthIntervals::default();
    let now = Time(0);
    let mut health = Health::default().after(&refused(), 0, intervals, now);
    let mut waits = vec![health.next_check.since(now).as_secs()];
    for _ in 0..6 {
        let failed = HealthEvent::CheckFailed(Cause::ConnectionRefused, String::new());
        health = health.after(&failed, 0, intervals, now);
        waits.push(health.next_check.since(now).as_secs());
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn a_healthy_provider_is_checked_every_five_minutes_and_an_unhealthy_one_every_half() {
    let checked = |event| Health::default().after(&event, 3, HealthIntervals::default(), Time(0));
    assert_eq!(checked(HealthEvent::CheckPassed).next_check, Time(300_000));
    let failed = HealthEvent::CheckFailed(Cause::ConnectionTimeout, String::new());
    assert_eq!(checked(failed).next_check, Time(30_000));
}

fn held(quota: Quota) -> HealthEvent {
    HealthEvent::Held(quota, "452 4.4.5".into())
}

#[test]
fn a_hold_ends_by_the_first_delivery_after_its_time_and_the_next_one_is_longer() {
    let after = |health: &Health, event: &HealthEvent, minute: u64| {
        health.after(event, 0, HealthIntervals::default(), Time(minute * 60_000))
    };
    let until = |health: &Health| health.held.as_ref().map(|hold| hold.until.0 / 60_000);
    let health = after(&Health::default(), &held(Quota::Burst), 0);
    assert_eq!(until(&health), Some(1));
    let health = after(&health, &HealthEvent::Reached, 0);
    assert_eq!(until(&health), Some(1), "that one was under way");
    let health = after(&health, &HealthEvent::CheckPassed, 2);
    assert_eq!(until(&health), Some(1), "a login is no mail");
    assert!(health.held(Time(60_000)).is_none(), "its time is over, and one goes first");
    let health = after(&health, &held(Quota::Burst), 2);
    assert_eq!(until(&health), Some(4), "not yet");
    let health = after(&health, &HealthEvent::Reached, 4);
    assert_eq!(until(&health), None);
    let health = after(&health, &held(Quota::Burst), 5);
    assert_eq!(until(&health), Some(9), "again, and soon");
    let health = after(&health, &HealthEvent::Reached, 9);
    let health = after(&health, &held(Quota::Burst), 100);
    assert_eq!(until(&health), Some(101), "long after");
}

#[test]
fn answers_to_what_was_under_way_neither_double_a_hold_nor_shorten_it() {
    let intervals = HealthIntervals::default();
    let first = Health::default().after(&held(Quota::Day), 0, intervals, Time(0));
    let second = first.after(&held(Quota::Burst), 0, intervals, Time(10));
    let hold = second.held.expect("held");
    assert_eq!((hold.quota, hold.doublings), (Quota::Day, 0));
    assert!(Time(3_600_000) <= hold.until);
    assert!(hold.until <= second.next_check, "and it is not logged in to meanwhile");
}

#[test]
fn the_answer_that_a_quota_is_used_up_closes_a_circuit_that_is_open_for_want_of_an_answer() {
    let after = |cause| {
        let away = HealthEvent::Unreachable(cause, String::new());
        let open = Health::default().after(&away, 0, HealthIntervals::default(), Time(0));
        assert!(!open.is_closed());
        open.after(&held(Quota::Day), 0, HealthIntervals::default(), Time(1000))
    };
    for cause in [Cause::ConnectionTimeout, Cause::ConnectionRefused, Cause::Dns, Cause::Protocol] {
        let health = after(cause);
        assert!(health.is_closed(), "{cause:?}");
        assert_eq!((health.healthy, health.unreachable_count), (Some(true), 0), "{cause:?}");
        assert!(health.held(Time(1000)).is_some(), "{cause:?}");
    }
    for cause in [Cause::Tls, Cause::AuthFailed, Cause::LoginRefused] {
        let health = after(cause);
        assert!(!health.is_closed(), "{cause:?}: it may be asked before that");
        assert_eq!(health.healthy, Some(false), "{cause:?}");
    }
}

#[test]
fn refused_logins_are_checked_ever_more_rarely() {
    let intervals = HealthIntervals::default();
    let mut health = Health::default();
    let mut waits = vec![];
    for _ in 0..9 {
        let failed = HealthEvent::CheckFailed(Cause::LoginRefused, String::new());
        health = health.after(&failed, 3, intervals, Time(0));
        waits.push(health.next_check.0 / 1000);
    }
    assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
}
