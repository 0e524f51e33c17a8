use super::*;
use crate::core::provider::{Grant, Password};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{advance, sleep};

const HOUR: Duration = Duration::from_secs(3600);

fn name() -> ProviderName {
    ProviderName::new("a").expect("a name")
}

fn oauth2(refresh_token: &str) -> OAuth2 {
    let refresh_token = Password::Loaded(refresh_token.to_owned().into());
    OAuth2 {
        token_url: "https://login.example.com/token".to_owned(),
        client_id: "client".to_owned(),
        scope: None,
        grant: Grant::RefreshToken { refresh_token, client_secret: None },
    }
}

/// Tokens, and a token server that numbers them.
#[derive(Default)]
struct World {
    tokens: Tokens,
    fetches_count: Arc<AtomicUsize>,
}

impl World {
    /// The token, by a server that takes a second and then gives one with this life.
    async fn get(&self, lifetime: Duration) -> Token {
        self.ask(&oauth2("secret's"), Ok(lifetime)).await.expect("a token")
    }

    async fn ask(
        &self,
        oauth2: &OAuth2,
        answer: Result<Duration, Cause>,
    ) -> Result<Token, TokenError> {
        let fetches_count = self.fetches_count.clone();
        let fetch = async move |_| {
            sleep(Duration::from_secs(1)).await;
            let nth = 1 + fetches_count.fetch_add(1, Ordering::Relaxed);
            let failed = |cause| TokenError { cause, detail: format!("failure {nth}") };
            let token = SecretString::from(format!("token {nth}"));
            let granted = |lifetime| Granted { token, lifetime, refresh_token: None };
            answer.map(granted).map_err(failed)
        };
        self.tokens.get_by(&name(), oauth2, fetch).await
    }
}

fn shown(token: &Token) -> (&str, bool) {
    (token.text.expose_secret(), token.is_reused)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_again_until_five_minutes_before_its_end() {
    let world = World::default();
    assert_eq!(shown(&world.get(HOUR).await), ("token 1", false));
    advance(Duration::from_secs(55 * 60 - 2)).await;
    assert_eq!(shown(&world.get(HOUR).await), ("token 1", true));
    advance(Duration::from_secs(1)).await;
    assert_eq!(shown(&world.get(HOUR).await), ("token 2", false));
}

#[tokio::test(start_paused = true)]
async fn a_short_life_is_used_to_four_fifths_and_none_not_at_all() {
    let (world, minute) = (World::default(), Duration::from_secs(60));
    world.get(minute).await;
    advance(Duration::from_secs(46)).await;
    assert_eq!(shown(&world.get(minute).await), ("token 1", true));
    advance(Duration::from_secs(1)).await;
    assert_eq!(shown(&world.get(Duration::ZERO).await), ("token 2", false));
    assert_eq!(shown(&world.get(minute).await), ("token 3", false));
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_a_token_is_fetched_waits_for_that_one_good_or_bad() {
    let world = World::default();
    let all = futures_util::future::join_all((0..10).map(|_| world.get(HOUR))).await;
    assert!(all.iter().all(|token| shown(token) == ("token 1", false)));

    let (world, oauth2) = (World::default(), oauth2("secret's"));
    let failing = (0..10).map(|_| world.ask(&oauth2, Err(Cause::AuthFailed)));
    let all = futures_util::future::join_all(failing).await;
    assert!(all.iter().all(|failed| failed.as_ref().is_err_and(|e| e.detail == "failure 1")));
    let next = world.ask(&oauth2, Err(Cause::AuthFailed)).await.expect_err("no token");
    assert_eq!(next.detail, "failure 2", "a failure is not kept");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_holds_up_nobody_who_waits_with_him() {
    let world = World::default();
    let gives_up = tokio::time::timeout(Duration::from_millis(500), world.get(HOUR));
    let (gone, token) = tokio::join!(gives_up, world.get(HOUR));
    assert!(gone.is_err());
    assert_eq!(shown(&token), ("token 1", false));
    assert_eq!(world.fetches_count.load(Ordering::Relaxed), 1, "they wait for the same");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_is_replaced_once_whoever_else_has_it() {
    let world = World::default();
    let first = world.get(HOUR).await;
    world.tokens.refused(&name(), &first);
    let second = world.get(HOUR).await;
    world.tokens.refused(&name(), &first);
    assert_eq!(shown(&second), ("token 2", false));
    assert_eq!(shown(&world.get(HOUR).await), ("token 2", true));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_lives_bridges_a_token_server_that_fails_and_asks_it_twice_a_minute() {
    let (world, oauth2) = (World::default(), oauth2("secret's"));
    world.get(HOUR).await;
    advance(Duration::from_secs(56 * 60)).await;
    for fetches_count in [2, 2, 3, 3] {
        let token = world.ask(&oauth2, Err(Cause::AuthFailed)).await.expect("the old one");
        assert_eq!(shown(&token), ("token 1", true));
        assert_eq!(world.fetches_count.load(Ordering::Relaxed), fetches_count);
        advance(Duration::from_secs(if fetches_count == 2 { 16 } else { 0 })).await;
    }
    advance(Duration::from_secs(4 * 60)).await;
    for _ in 0..2 {
        assert!(world.ask(&oauth2, Err(Cause::AuthFailed)).await.is_err(), "it has ended");
    }
}

#[tokio::test(start_paused = true)]
async fn another_secret_counts_at_once() {
    let world = World::default();
    world.get(HOUR).await;
    let token = world.ask(&oauth2("another"), Ok(HOUR)).await.expect("a token");
    assert_eq!(shown(&token), ("token 2", false));
}

/// What gives out `refresh_token` with a token that has no life.
fn granted(refresh_token: &str) -> Granted {
    Granted {
        token: "token".into(),
        lifetime: Duration::ZERO,
        refresh_token: Some(refresh_token.into()).filter(|_| !refresh_token.is_empty()),
    }
}

/// Asks for a token; the refresh token that is used has to be this one, unless it is the Secret's.
async fn ask(
    tokens: &Tokens,
    used: Option<&'static str>,
    answer: Result<Granted, TokenError>,
) -> Result<Token, TokenError> {
    let fetch = async move |refresh_token: Option<SecretString>| {
        assert_eq!(refresh_token.as_ref().map(ExposeSecret::expose_secret), used);
        sleep(Duration::from_secs(1)).await;
        answer
    };
    tokens.get_by(&name(), &oauth2("secret's"), fetch).await
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_was_replaced_is_not_used_again_until_its_successor_is_refused() {
    let tokens = Tokens::default();
    let refused = TokenError { cause: Cause::LoginRefused, detail: "refused".to_owned() };
    for (used, answer) in [
        (None, Ok(granted("second"))),
        (Some("second"), Ok(granted("third"))),
        (Some("third"), Ok(granted(""))),
        (Some("third"), Err(refused)),
        (None, Ok(granted(""))),
    ] {
        let wanted = answer.as_ref().map(|_| ()).map_err(TokenError::clone);
        assert_eq!(ask(&tokens, used, answer).await.map(|_| ()), wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_comes_when_nobody_waits_any_more_is_kept() {
    let tokens = Tokens::default();
    let asked = ask(&tokens, None, Ok(granted("second")));
    assert!(tokio::time::timeout(Duration::from_millis(500), asked).await.is_err());
    sleep(Duration::from_secs(1)).await;
    ask(&tokens, Some("second"), Ok(granted(""))).await.expect("a token");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_breaks_is_a_failure_and_no_more_than_that() {
    let tokens = Tokens::default();
    let breaks = async |_| panic!("as a test wants it");
    let broken = tokens.get_by(&name(), &oauth2("secret's"), breaks).await.expect_err("no token");
    assert_eq!(broken.detail, "the token was not fetched");
    ask(&tokens, None, Ok(granted(""))).await.expect("a token");
}
