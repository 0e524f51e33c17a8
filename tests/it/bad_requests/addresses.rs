//! Addresses that are refused, by the rule that they break. They are the same for recipients and for
//! `replyTo`.

use axum::http::StatusCode;
use serde_json::json;

use super::{faults, with};
use crate::support::api::TestApi;

const FORM: &str = "must have the form local@domain";
const UNSEEN: &str = "must not contain spaces, control or invisible characters";
const LOCAL: &str = "must have a local part of letters, digits, dots and !#$%&'*+-/=?^_`{|}~";
const LABELS: &str = "must have a domain of labels of letters, digits and hyphens";

fn bad_addresses() -> Vec<(&'static str, Vec<String>)> {
    let owned = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let domain = |labels: usize, last: usize| {
        let labels = std::iter::repeat_n("b".repeat(63), labels).collect::<Vec<_>>().join(".");
        format!("{labels}.{}", "c".repeat(last))
    };
    vec![
        ("must not be empty", owned(&[""])),
        (
            FORM,
            owned(&[
                "a",
                "@",
                "@example.com",
                "a@",
                "example.com",
                "a%example.com",
                "a.example.com",
                "＠example.com",
            ]),
        ),
        (
            UNSEEN,
            owned(&[
                " ",
                " a@example.com",
                "a@example.com ",
                "a @example.com",
                "a@ example.com",
                "a@exam ple.com",
                "a@example.com\n",
                "a\r\nBcc: evil@example.net@example.com",
                "a@example.com\r\nRCPT TO:<evil@example.net>",
                "a\tb@example.com",
                "a\0b@example.com",
                "a@example.com\0",
                "a\u{7f}@example.com",
                "a\u{85}b@example.com",
                "a\u{a0}b@example.com",
                "a\u{3000}b@example.com",
                "a\u{2028}b@example.com",
                "a\u{200b}@example.com",
                "a\u{200d}@example.com",
                "a@exam\u{ad}ple.com",
                "a@example.com\u{202e}",
                "\u{202d}a@example.com",
                "\u{feff}a@example.com",
                "a\u{2066}b@example.com",
                "a\u{fffd}@example.com",
                "Alice <a@example.com>",
                "\"Alice\" <a@example.com>",
                "a@example.com, b@example.com",
                "a@example.com b@example.com",
                "\"a b\"@example.com",
                "undisclosed-recipients: a@example.com;",
            ]),
        ),
        (
            LOCAL,
            owned(&[
                ".a@example.com",
                "a.@example.com",
                "a..b@example.com",
                "<a@example.com",
                "<a@example.com>",
                "mailto:a@example.com",
                "group:a@example.com",
                "a@b@example.com",
                "@relay.example:a@example.com",
                "<@relay.example:a@example.com",
                "a@example.com,evil@example.net",
                "a@example.com;evil@example.net",
                "a(comment)@example.com",
                "(comment)a@example.com",
                "\"a\"@example.com",
                "\"ab@example.com",
                "\"a@b\"@example.com",
                "a\\b@example.com",
                "a[b]@example.com",
                "a<b>@example.com",
            ]),
        ),
        (
            LABELS,
            owned(&[
                "a@example.com>",
                "a@.example.com",
                "a@example.com.",
                "a@example..com",
                "a@.",
                "a@-example.com",
                "a@example-.com",
                "a@exa_mple.com",
                "a@example.com:25",
                "a@example.com/x",
                "a@example.com?subject=x",
                "a@(comment)example.com",
                "a@[127.0.0.1]",
                "root@[IPv6:::1]",
                "a@::1",
                "a@*.com",
                "a@example,com",
            ])
            .into_iter()
            .chain([format!("a@{}.com", "b".repeat(64)), format!("a@{}.com", "ü".repeat(32))])
            .collect(),
        ),
        (
            "must have a domain name, not an IP address",
            owned(&["a@127.0.0.1", "a@2130706433", "a@example.1"]),
        ),
        (
            "must have a local part of at most 64 octets",
            vec![
                format!("{}@example.com", "a".repeat(65)),
                format!("{}@example.com", "ü".repeat(33)),
            ],
        ),
        (
            "must be at most 254 octets",
            vec![
                format!("a@{}", domain(3, 61)),
                format!("{}@{}", "a".repeat(64), domain(3, 10)),
                format!("a@{}", "b".repeat(1 << 16)),
            ],
        ),
    ]
}

#[tokio::test]
async fn a_bad_address_is_named_with_the_rule_that_it_breaks() {
    let api = TestApi::start();
    for (rule, addresses) in bad_addresses() {
        for address in addresses {
            let body = with(json!({"recipients": ["a@example.com", address], "replyTo": address}));
            let answer = api.post("/notify", body).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{address:?}");
            let expected = ["/recipients/1", "/replyTo"].map(|at| (at.to_owned(), rule.to_owned()));
            assert_eq!(faults(&answer), expected, "{address:?}");
        }
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn addresses_at_the_bounds_of_every_rule_are_taken() {
    let long = format!("{}@{}.{}", "a".repeat(64), "b".repeat(63), "c".repeat(63));
    let longest = format!("{long}.{}", "d".repeat(254 - long.len() - 1));
    let label = format!("a@{}.com", "b".repeat(63));
    for address in [
        "a@b",
        "!#$%&'*+-/=?^_`{|}~@example.com",
        "a.b.c@example.com",
        "a@xn--bcher-kva.example",
        "a@bücher.example",
        "грета@пример.рф",
        "用户@例え.テスト",
        "a@1.example",
        "a@example.x1",
        &label,
        &longest,
    ] {
        let api = TestApi::start();
        let answer = api.post("/notify", with(json!({"recipients": [address]}))).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{address}: {}", answer.text);
        assert_eq!(answer.json()["jobs"][0]["recipient"], address, "{address}");
    }
}
