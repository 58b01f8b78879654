//! Patterns that URIs match.

use std::fmt;
use std::str::FromStr;

/// A URI in which `*` stands for one or more characters within a segment (no `/`), and `**` for one
/// or more of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriPattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    WithinSegment,
    Anything,
}

impl Token {
    fn takes(self, c: char) -> bool {
        match self {
            Self::Literal(literal) => literal == c,
            Self::WithinSegment => c != '/',
            Self::Anything => true,
        }
    }
}

impl UriPattern {
    /// Whether the whole of `uri` matches. Takes time in proportion to both lengths, whatever they
    /// hold.
    pub fn matches(&self, uri: &str) -> bool {
        // `reached[n]`: the first n tokens match what was read so far.
        let mut reached = vec![false; self.tokens.len() + 1];
        reached[0] = true;
        for c in uri.chars() {
            let mut next = vec![false; reached.len()];
            for (index, token) in self.tokens.iter().enumerate() {
                if reached[index] && token.takes(c) {
                    next[index + 1] = true;
                    next[index] |= !matches!(token, Token::Literal(_));
                }
            }
            reached = next;
        }
        reached[self.tokens.len()]
    }
}

impl FromStr for UriPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains("***") {
            return Err(format!(
                "`{text}` is not a pattern of URIs: write spiffe://acme/*/web or spiffe://acme/**"
            ));
        }
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' if rest.next_if_eq(&'*').is_some() => Token::Anything,
                '*' => Token::WithinSegment,
                literal => Token::Literal(literal),
            });
        }
        Ok(Self { text: text.to_owned(), tokens })
    }
}

impl fmt::Display for UriPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_stays_in_its_segment_and_two_do_not() {
        for (pattern, matched, refused) in [
            ("spiffe://a/b", &["spiffe://a/b"][..], &["spiffe://a/b/", "spiffe://a/B", "spiffe://a", ""][..]),
            (
                "spiffe://a/*",
                &["spiffe://a/b", "spiffe://a/*"],
                &["spiffe://a/", "spiffe://a/b/c", "spiffe://b/c"],
            ),
            (
                "spiffe://a/*/c",
                &["spiffe://a/b/c"],
                &["spiffe://a//c", "spiffe://a/b/b/c", "spiffe://a/b/cc"],
            ),
            ("spiffe://a/web-*", &["spiffe://a/web-1"], &["spiffe://a/web-", "spiffe://a/web-1/x"]),
            (
                "spiffe://a/**",
                &["spiffe://a/b", "spiffe://a/b/c"],
                &["spiffe://a/", "spiffe://ab/c", "xspiffe://a/b"],
            ),
            ("spiffe://**/c", &["spiffe://a/c", "spiffe://a/b/c"], &["spiffe:///c", "spiffe://a/b"]),
        ] {
            let pattern: UriPattern = pattern.parse().unwrap();
            for uri in matched {
                assert!(pattern.matches(uri), "{pattern} {uri}");
            }
            for uri in refused {
                assert!(!pattern.matches(uri), "{pattern} {uri}");
            }
        }
        assert!("a/***".parse::<UriPattern>().is_err());
    }

    #[test]
    fn a_hostile_uri_takes_no_time_to_speak_of() {
        let pattern: UriPattern = "**a**a**a**a**a**a**a**b".parse().unwrap();
        assert!(!pattern.matches(&"a".repeat(16 * 1024)));
    }
}
