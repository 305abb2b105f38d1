//! HTML by construction: every element is closed, every text and every attribute escaped.

use std::fmt::{Display, Write};

/// Markup that is whole: elements closed, texts escaped.
#[derive(Clone, Debug, Default)]
pub struct Html(String);

impl Html {
    /// Text, escaped.
    pub fn text(text: impl Display) -> Self {
        Self(escape(&text.to_string()))
    }

    /// Several pieces, one after the other.
    pub fn all(pieces: impl IntoIterator<Item = Self>) -> Self {
        Self(pieces.into_iter().map(|piece| piece.0).collect())
    }

    /// A style sheet of the program's own: its text is no one else's and holds nothing to escape.
    pub fn style(css: &'static str) -> Self {
        Self(format!("<style>{css}</style>\n"))
    }

    /// The document around an `html` element.
    pub fn document(self) -> String {
        format!("<!DOCTYPE html>\n{}", self.0)
    }
}

/// An element with attributes and content.
pub fn element(name: &'static str, attributes: &[(&'static str, &dyn Display)], content: Html) -> Html {
    let mut markup = format!("<{name}");
    for (attribute, value) in attributes {
        let value = escape(&value.to_string());
        write!(markup, " {attribute}=\"{value}\"").expect("a string takes what is written to it");
    }
    if content.0.is_empty() {
        markup.push_str(match name {
            // The only elements of HTML used here that have no end tag; those of SVG may close themselves too.
            "meta" | "rect" | "path" | "line" | "circle" => "/>",
            _ => ">",
        });
        if markup.ends_with("/>") {
            return Html(markup);
        }
    } else {
        markup.push('>');
    }
    markup.push_str(&content.0);
    write!(markup, "</{name}>").expect("a string takes what is written to it");
    if matches!(name, "p" | "h1" | "h2" | "tr" | "table" | "svg" | "section" | "li" | "dl" | "div") {
        markup.push('\n');
    }
    Html(markup)
}

/// An element with text in it.
pub fn words(name: &'static str, text: impl Display) -> Html {
    element(name, &[], Html::text(text))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters have no place in HTML, escaped or not.
            character if character.is_control() && character != '\n' => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}
