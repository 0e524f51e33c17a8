//! What `GET /metrics` says, read by its text format.

use hyper::Method;

use super::client::Client;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Scrape {
    pub media_type: String,
    pub text: String,
}

impl Scrape {
    /// Scrapes a server.
    ///
    /// # Panics
    /// When the answer is not a 200 of text.
    pub async fn of(client: &Client) -> Self {
        let answer = client.call(Method::GET, "/metrics", &[], None).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let media_type = answer.headers["content-type"].to_str().expect("ASCII").to_owned();
        Self { media_type, text: answer.body }
    }

    /// The value of the series whose name ends in `name` and that has exactly these labels, in the
    /// order of their names.
    ///
    /// # Panics
    /// When there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name}{labels:?} in\n{}", self.text))
    }

    /// The same, of a series that counts things.
    ///
    /// # Panics
    /// When there is none.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.value(name, labels) as usize
    }

    /// What all series of this name count, whatever their labels.
    ///
    /// # Panics
    /// When one is no number.
    pub fn sum(&self, name: &str) -> usize {
        let head = format!("breakglass_mailprovider_{name}{{");
        let lines = self.text.lines().filter(|line| line.starts_with(&head));
        let values = lines.filter_map(|line| line.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<f64>().expect("a number") as usize).sum()
    }

    /// The same as `value`; `None` when there is none.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let series = match labels.is_empty() {
            true => name.to_owned(),
            false => format!("{name}{{{}}}", labels.join(",")),
        };
        let mut lines = self.text.lines().filter(|line| !line.starts_with('#'));
        lines.find_map(|line| {
            let (shown, value) = line.rsplit_once(' ')?;
            let is_it = ["breakglass_mailprovider_", "breakglass_mailer_"]
                .iter()
                .any(|prefix| shown.strip_prefix(prefix) == Some(&series));
            is_it.then(|| value.parse().expect("a number"))
        })
    }
}
