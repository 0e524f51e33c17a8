//! A place in a trace, as one program tells it to the next (W3C Trace Context).

use std::fmt::Write;

/// The span that something belongs to, and the trace of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: String,
}

impl TraceContext {
    /// No `tracestate` is longer: a longer one is left out, as the standard allows.
    pub const STATE_BYTES_MAX: usize = 512;

    /// `None` when an id is zero, which stands for none.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8, state: &str) -> Option<Self> {
        let is_state = state.len() <= Self::STATE_BYTES_MAX
            && state.bytes().all(|c| c == b' ' || c.is_ascii_graphic());
        let state = if is_state { state.to_owned() } else { String::new() };
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            flags,
            state,
        })
    }

    /// Reads the headers `traceparent` and `tracestate`; the latter is empty when there is none.
    /// `None` when the former is not as the standard says: a new trace begins then.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let [version] = hex(parts.next()?)?;
        let (trace_id, span_id) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        // A later version may say more; this one must not.
        let is_whole = match version {
            0 => parts.next().is_none(),
            0xff => false,
            _ => true,
        };
        if is_whole { Self::new(trace_id, span_id, flags, tracestate) } else { None }
    }

    /// The header `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id_hex(), self.span_id_hex(), self.flags)
    }

    /// The header `tracestate`; empty when there is none.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }

    /// The trace. Never zero.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span. Never zero.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// The lowest bit says whether the spans of the trace are kept by somebody.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The trace in 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        digits(&self.trace_id)
    }

    /// The span in 16 hexadecimal digits.
    #[must_use]
    pub fn span_id_hex(&self) -> String {
        digits(&self.span_id)
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes all that is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Two lower-case digits for each byte, and nothing else.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 2 * N || !is_hex {
        return None;
    }
    let mut bytes = [0; N];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_the_same() {
        let context = TraceContext::parse(PARENT, "rojo=1,congo=2").expect("it is valid");
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id_hex(), "00f067aa0ba902b7");
        assert_eq!((context.flags(), context.state()), (1, "rojo=1,congo=2"));
    }

    #[test]
    fn what_the_standard_does_not_allow_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad, ""), None, "{bad}");
        }
        let later = PARENT.replacen("00", "01", 1) + "-more";
        assert!(TraceContext::parse(&later, "").is_some(), "a later version may say more");
    }

    #[test]
    fn a_state_that_is_too_long_or_no_header_is_left_out() {
        for bad in ["x".repeat(513), "a=1\nb".to_owned(), "ä=1".to_owned()] {
            assert_eq!(TraceContext::parse(PARENT, &bad).expect("it is valid").state(), "");
        }
        let most = "x".repeat(TraceContext::STATE_BYTES_MAX);
        assert_eq!(TraceContext::parse(PARENT, &most).expect("it is valid").state(), most);
    }
}
