//! What an answer of the API server may take: bounds on time and memory under every call.
//!
//! A server or a proxy on the way that hangs, drips, or sends without end costs a call its answer
//! and nothing else. A watch may be silent, for its server ends it; its lines are bounded.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame};
use hyper::{Request, Response};
use kube::client::Body;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::{BoxError, Layer, Service};

/// For a whole answer; of a watch, for its beginning.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// How long an answer may be. A page of a list has [`PAGE_OBJECTS_COUNT_MAX`] objects.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a line of a watch may be. etcd takes objects of up to 1.5 MiB.
const LINE_BYTES_MAX: usize = 4 << 20;
/// A watch that ends is begun again at once, so one that ends sooner is held open until then.
const WATCH_TIME_MIN: Duration = Duration::from_secs(1);

/// How many objects a page of a list has.
pub(super) const PAGE_OBJECTS_COUNT_MAX: u32 = 100;

/// Why an answer is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Excess {
    #[error("no answer within {ANSWER_TIME_MAX:?}")]
    Time,
    #[error("an answer of more than {0} bytes")]
    Bytes(usize),
}

/// Puts every call under the limits.
pub(super) struct Limits;

impl<S> Layer<S> for Limits {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Limited(inner)
    }
}

/// A service under the limits.
pub(super) struct Limited<S>(S);

impl<S, B> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<LimitedBody<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let begin = Instant::now();
        let is_watch = is_watch(request.uri().query().unwrap_or_default());
        let answering = self.0.call(request);
        Box::pin(async move {
            let end = begin + ANSWER_TIME_MAX;
            let answer = timeout_at(end, answering).await.map_err(|_| Excess::Time)??;
            Ok(answer.map(|body| LimitedBody::new(body, is_watch, begin)))
        })
    }
}

fn is_watch(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

/// The body of an answer under the limits.
pub(super) struct LimitedBody<B> {
    body: B,
    is_watch: bool,
    /// Of the answer, or of a watch since the last line end.
    bytes_count: usize,
    /// When an answer has to be whole, and before which a watch does not end.
    at: Pin<Box<Sleep>>,
    /// How the watch ended, until that is told.
    end: Option<Result<(), BoxError>>,
}

impl<B> LimitedBody<B> {
    fn new(body: B, is_watch: bool, begin: Instant) -> Self {
        let time = if is_watch { WATCH_TIME_MIN } else { ANSWER_TIME_MAX };
        let at = Box::pin(sleep_until(begin + time));
        Self { body, is_watch, bytes_count: 0, at, end: None }
    }

    fn count(&mut self, data: &[u8]) -> Result<(), Excess> {
        let line_end = data.iter().rposition(|byte| *byte == b'\n').filter(|_| self.is_watch);
        self.bytes_count = match line_end {
            Some(at) => data.len() - at - 1,
            None => self.bytes_count.saturating_add(data.len()),
        };
        let bytes_max = if self.is_watch { LINE_BYTES_MAX } else { ANSWER_BYTES_MAX };
        if bytes_max < self.bytes_count { Err(Excess::Bytes(bytes_max)) } else { Ok(()) }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

impl<B> HttpBody for LimitedBody<B>
where
    B: HttpBody<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        if this.end.is_none() {
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let counted = frame.data_ref().map_or(Ok(()), |data| this.count(data));
                    return Poll::Ready(Some(counted.map(|()| frame).map_err(BoxError::from)));
                }
                Poll::Ready(ended) => {
                    let end = ended.map_or(Ok(()), |frame| frame.map(drop));
                    if !this.is_watch {
                        return Poll::Ready(end.err().map(Err));
                    }
                    this.end = Some(end);
                }
                Poll::Pending if this.is_watch => return Poll::Pending,
                Poll::Pending => {
                    ready!(this.at.as_mut().poll(context));
                    return Poll::Ready(Some(Err(Excess::Time.into())));
                }
            }
        }
        if Instant::now() < this.at.deadline() {
            ready!(this.at.as_mut().poll(context));
        }
        // Told once; after that it has ended.
        let end = this.end.replace(Ok(()));
        Poll::Ready(end.and_then(Result::err).map(Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use std::future::pending;

    type Answer = Response<StreamBody<stream::Empty<Result<Frame<Bytes>, BoxError>>>>;
    type Chunks = Vec<Result<Frame<Bytes>, BoxError>>;

    fn chunks(count: usize, of: &'static [u8]) -> Chunks {
        (0..count).map(|_| Ok(Frame::data(Bytes::from_static(of)))).collect()
    }

    fn body(
        chunks: Chunks,
        is_watch: bool,
    ) -> LimitedBody<impl HttpBody<Data = Bytes, Error = BoxError> + Unpin> {
        LimitedBody::new(StreamBody::new(stream::iter(chunks)), is_watch, Instant::now())
    }

    fn excess(error: BoxError) -> Option<Excess> {
        error.downcast_ref().copied()
    }

    const MIB: &[u8] = &[b'x'; 1 << 20];
    const MIB_LINE: &[u8] = &{
        let mut line = [b'x'; 1 << 20];
        line[MIB.len() - 1] = b'\n';
        line
    };

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_end_is_given_up_at_its_bound() {
        let whole = body(chunks(16, MIB), false).collect().await.expect("it is not too long");
        assert_eq!(whole.to_bytes().len(), ANSWER_BYTES_MAX);
        for chunk in [MIB, MIB_LINE] {
            let error = body(chunks(17, chunk), false).collect().await.expect_err("too long");
            assert_eq!(excess(error), Some(Excess::Bytes(ANSWER_BYTES_MAX)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_as_long_as_it_likes_but_no_line_of_it_is() {
        body(chunks(100, MIB_LINE), true).collect().await.expect("its lines are short");
        let error = body(chunks(5, MIB), true).collect().await.expect_err("too long");
        assert_eq!(excess(error), Some(Excess::Bytes(LINE_BYTES_MAX)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_or_breaks_at_once_does_so_a_second_later() {
        let begin = Instant::now();
        assert!(body(vec![], true).frame().await.is_none());
        assert_eq!(begin.elapsed(), WATCH_TIME_MIN);
        let mut broken = body(vec![Err("broken".into())], true);
        assert!(broken.frame().await.is_some_and(|frame| frame.is_err()));
        assert_eq!(begin.elapsed(), 2 * WATCH_TIME_MIN);
        assert!(broken.frame().await.is_none(), "it is told once");
        assert!(body(vec![], false).frame().await.is_none());
        assert_eq!(begin.elapsed(), 2 * WATCH_TIME_MIN, "an answer is there when it is there");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_left_in_time_and_a_watch_may_be_silent() {
        let hanging = |is_watch| {
            let never = Box::pin(stream::pending::<Result<Frame<Bytes>, BoxError>>());
            LimitedBody::new(StreamBody::new(never), is_watch, Instant::now())
        };
        let error = hanging(false).collect().await.expect_err("it hangs");
        assert_eq!(excess(error), Some(Excess::Time));
        let day = Duration::from_hours(24);
        assert!(tokio::time::timeout(day, hanging(true).collect()).await.is_err());

        let hanging = tower::service_fn(|_: Request<Body>| pending::<Result<Answer, BoxError>>());
        let asked = Limits.layer(hanging).call(Request::new(Body::empty())).await;
        assert_eq!(asked.err().and_then(excess), Some(Excess::Time));
    }

    #[test]
    fn a_watch_is_known_by_its_query() {
        assert!(is_watch("&watch=true&timeoutSeconds=40"));
        assert!(!is_watch("fieldSelector=metadata.name%3Dwatch&limit=100"));
    }
}
