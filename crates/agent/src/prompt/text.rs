//! Text from outside, made fit to be shown to a person and sent to a pinentry.

use zeroize::Zeroizing;

/// The beginning of `text`, at most `limit` bytes when [`escape`]d, in which nothing moves the
/// cursor, reverses the writing, or starts markup in a graphical pinentry.
pub(super) fn plain(text: &str, limit: usize) -> String {
    let mut plain = String::new();
    let mut length = 0;
    for c in text.chars() {
        let shown = match c {
            '<' => '‹',
            '>' => '›',
            c if c.is_control() || is_invisible(c) => '\u{fffd}',
            c => c,
        };
        length += if shown == '%' { 3 } else { shown.len_utf8() };
        if length > limit {
            plain.push('…');
            break;
        }
        plain.push(shown);
    }
    plain
}

/// Format characters, by which one text can be made to look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// `text` as the argument of an Assuan command, which ends at a line's end.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '%' => escaped.push_str("%25"),
            '\n' => escaped.push_str("%0A"),
            '\r' => escaped.push_str("%0D"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// What an Assuan `D` line says, in which `%25` stands for `%` and the like.
pub(super) fn unescape(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(*digit).to_digit(16));
        plain.push((digit()? * 16 + digit()?) as u8);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_can_neither_act_nor_pose() {
        assert_eq!(plain("a\r\nCONFIRM\n", 99), "a\u{fffd}\u{fffd}CONFIRM\u{fffd}");
        assert_eq!(plain("\x1b[2J", 99), "\u{fffd}[2J");
        assert_eq!(plain("x\u{202e}gpj.exe\u{200b}", 99), "x\u{fffd}gpj.exe\u{fffd}");
        assert_eq!(plain("<b>", 99), "‹b›");
        assert_eq!(plain("grüezi", 99), "grüezi");
        assert_eq!(plain("12345", 5), "12345");
        assert_eq!(plain("123456", 5), "12345…");
        assert_eq!(plain("%%%", 6), "%%…");
        assert_eq!(plain("ééé", 5), "éé…");
        assert_eq!(escape("50%\nOK"), "50%25%0AOK");
        assert_eq!(**unescape(b"50%25%0aOK").unwrap(), *b"50%\nOK");
        assert!(unescape(b"50%").is_none() && unescape(b"%2").is_none() && unescape(b"%zz").is_none());
    }
}
