//! What may stand in `spec.smtp.host`.

use std::net::IpAddr;

use crate::core::notification::is_label;

/// Whether `host` is a DNS name (one label will do) or an IP address, and nothing else.
///
/// A name is ASCII, as DNS and TLS want it. One whose last label is all digits is a misspelt IPv4
/// address (RFC 3696 2).
pub(super) fn is_host(host: &str) -> bool {
    let is_name = host.len() <= 253
        && host.is_ascii()
        && host.split('.').all(is_label)
        && !host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    is_name || host.parse::<IpAddr>().is_ok()
}

/// `host` as it may be shown: what stands before an `@` may be a password.
pub(super) fn shown(host: &str) -> String {
    match host.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        for good in [
            "smtp.example.com",
            "SMTP.Example.COM",
            "mailhog",
            "xn--bcher-kva.example",
            "3com.example",
            "192.168.1.100",
            "::1",
            "2001:db8::25",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "_",
            "_smtp._tcp.example.com",
            "*.example.com",
            "smtp..example.com",
            ".example.com",
            "smtp.example.com.",
            "smtp example.com",
            " smtp.example.com",
            "smtp.example.com\r\nRSET",
            "smtp.example.com\n",
            "smtp.example.com\0",
            "user:pass@smtp.example.com",
            "smtp.example.com:587",
            "smtp://smtp.example.com",
            "smtp.example.com/",
            "[::1]",
            "fe80::1%eth0",
            "1.2.3.256",
            "1.2.3",
            "-a.example.com",
            "bücher.example",
        ] {
            assert!(!is_host(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_password_before_the_host_is_not_shown() {
        assert_eq!(shown("user:pass@smtp.example.com"), "…@smtp.example.com");
        assert_eq!(shown("smtp example.com"), "smtp example.com");
    }
}
