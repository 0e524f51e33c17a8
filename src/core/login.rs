//! How a provider logs in: with a password, or with access tokens that a token server gives out.

use secrecy::{ExposeSecret, SecretString};

/// What AUTH needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `spec.smtp.username`.
    pub username: String,
    /// What proves it.
    pub login: Login,
}

/// What proves who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// `spec.smtp.passwordRef`: AUTH PLAIN or LOGIN.
    Password(Password),
    /// `spec.smtp.oauth2`: AUTH XOAUTH2.
    OAuth2(OAuth2),
}

/// Where access tokens come from (RFC 6749).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2 {
    /// `tokenURL`: https, or a loopback host.
    pub token_url: String,
    /// `clientID`.
    pub client_id: String,
    /// `scope`, space separated.
    pub scope: Option<String>,
    /// What they are given out for.
    pub grant: Grant,
}

/// What access tokens are given out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The client's own word (RFC 6749 4.4).
    ClientCredentials {
        /// What `clientSecretRef` led to.
        client_secret: Password,
    },
    /// The word of whoever owns the mailbox, given once (RFC 6749 6).
    RefreshToken {
        /// What `refreshTokenRef` led to.
        refresh_token: Password,
        /// What `clientSecretRef` led to; a public client has none.
        client_secret: Option<Password>,
    },
}

/// What a reference to a key of a Secret led to: a password, a client secret or a refresh token.
#[derive(Clone, Debug)]
pub enum Password {
    /// The password. Never printed.
    Loaded(SecretString),
    /// There is no such Secret; carries `namespace/name`.
    SecretNotFound(String),
    /// The Secret has no such key, or its value is empty; carries `namespace/name` and the key.
    KeyNotFound(String, String),
    /// Nobody told whether there is a Secret of this name (`namespace/name`).
    SecretUnreadable(String),
}

/// What a secret is for: it says so where it is missing, and in its stead where it was repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The field that names its Secret, below `spec.smtp`.
    pub field: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// What stands in its place.
    pub stand_in: &'static str,
}

impl Purpose {
    const PASSWORD: Self = Self { field: "passwordRef", name: "password", stand_in: "<password>" };
    const CLIENT_SECRET: Self = Self {
        field: "oauth2.clientSecretRef",
        name: "client secret",
        stand_in: "<client-secret>",
    };
    const REFRESH_TOKEN: Self = Self {
        field: "oauth2.refreshTokenRef",
        name: "refresh token",
        stand_in: "<refresh-token>",
    };
}

impl Credentials {
    /// A name and a password.
    #[must_use]
    pub fn with_password(username: &str, password: Password) -> Self {
        Self { username: username.to_owned(), login: Login::Password(password) }
    }

    /// All that has to be loaded from Secrets, and what each is for. Never empty.
    #[must_use]
    pub fn secrets(&self) -> Vec<(Purpose, &Password)> {
        match &self.login {
            Login::Password(password) => vec![(Purpose::PASSWORD, password)],
            Login::OAuth2(oauth2) => match &oauth2.grant {
                Grant::ClientCredentials { client_secret } => {
                    vec![(Purpose::CLIENT_SECRET, client_secret)]
                }
                Grant::RefreshToken { refresh_token, client_secret } => {
                    let client_secret =
                        client_secret.as_ref().map(|secret| (Purpose::CLIENT_SECRET, secret));
                    let refresh_token = (Purpose::REFRESH_TOKEN, refresh_token);
                    client_secret.into_iter().chain([refresh_token]).collect()
                }
            },
        }
    }

    /// Why the first of them that is missing is, in one sentence; `None` when none is.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        self.secrets().into_iter().find_map(|(_, secret)| secret.missing())
    }
}

impl Password {
    /// What of `value` is the password. A line break at its end is not part of it: `echo` and editors
    /// write one, and no login has one.
    #[must_use]
    pub fn text_of(value: &str) -> &str {
        value.trim_end_matches(['\r', '\n'])
    }

    /// The password that `value` of a Secret's `key` holds; an empty one is none.
    #[must_use]
    pub fn of(value: &str, secret: &str, key: &str) -> Self {
        match Self::text_of(value) {
            "" => Self::KeyNotFound(secret.to_owned(), key.to_owned()),
            password => Self::Loaded(SecretString::from(password)),
        }
    }

    /// It, when it is loaded.
    #[must_use]
    pub fn loaded(&self) -> Option<&SecretString> {
        match self {
            Self::Loaded(password) => Some(password),
            Self::SecretNotFound(_) | Self::KeyNotFound(..) | Self::SecretUnreadable(_) => None,
        }
    }

    /// Why there is none, in one sentence; `None` when there is one.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::Loaded(_) => None,
            Self::SecretNotFound(secret) => Some(format!("there is no Secret {secret}")),
            Self::SecretUnreadable(secret) => {
                Some(format!("the Secret {secret} cannot be read: we may not, or nobody answers"))
            }
            Self::KeyNotFound(secret, key) => {
                Some(format!("the Secret {secret} has no value for the key {key}"))
            }
        }
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        match (self.loaded(), other.loaded()) {
            (Some(a), Some(b)) => a.expose_secret() == b.expose_secret(),
            // What is missing for the same reason is told in the same words.
            (None, None) => self.missing() == other.missing(),
            _ => false,
        }
    }
}

impl Eq for Password {}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Password {
        Password::Loaded(text.to_owned().into())
    }

    fn missing() -> Password {
        Password::SecretNotFound("default/a".to_owned())
    }

    fn with(grant: Grant) -> Credentials {
        let oauth2 = OAuth2 {
            token_url: "https://login.example.com/token".to_owned(),
            client_id: "client".to_owned(),
            scope: None,
            grant,
        };
        Credentials { username: "ada".to_owned(), login: Login::OAuth2(oauth2) }
    }

    #[test]
    fn debugging_shows_no_secret() {
        let (refresh_token, client_secret) = (loaded("hunter2"), Some(loaded("hunter2")));
        for credentials in [
            Credentials::with_password("ada", loaded("hunter2")),
            with(Grant::ClientCredentials { client_secret: loaded("hunter2") }),
            with(Grant::RefreshToken { refresh_token, client_secret }),
        ] {
            let shown = format!("{credentials:?}");
            assert!(shown.contains("ada") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn two_logins_are_the_same_when_their_secrets_are_too() {
        let client = |client_secret| with(Grant::ClientCredentials { client_secret });
        assert_eq!(client(loaded("one")), client(loaded("one")));
        assert_ne!(client(loaded("one")), client(loaded("two")));
        assert_ne!(client(loaded("one")), client(missing()));
        assert_eq!(client(missing()), client(missing()));
        assert_ne!(client(loaded("one")), Credentials::with_password("ada", loaded("one")));
        let other_key = Password::KeyNotFound("default/a".to_owned(), "key".to_owned());
        assert_ne!(client(missing()), client(other_key));
    }

    #[test]
    fn what_is_missing_of_several_secrets_is_told() {
        let refresh = |refresh_token, client_secret| {
            with(Grant::RefreshToken { refresh_token, client_secret }).missing()
        };
        let told = Some("there is no Secret default/a".to_owned());
        assert_eq!(refresh(loaded("one"), None), None);
        assert_eq!(refresh(missing(), None), told);
        assert_eq!(refresh(missing(), Some(loaded("two"))), told);
        assert_eq!(refresh(loaded("one"), Some(missing())), told);
    }
}
