//! Rules for Rust sources: sizes, crate docs, leftovers, and no way around the bans of a PURE crate.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::house::PURE;

/// A longer file holds more than one concept.
const MAX_FILE_LINES: usize = 800;
/// A longer function does more than one thing.
const MAX_FUNCTION_LINES: usize = 70;
/// A library says what it owns, what it must not know and where to start reading.
const MIN_LIBRARY_DOC_LINES: usize = 3;

/// Words that mark unfinished work. Split so that this file does not contain them.
const MARKERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
/// Macros that mark unfinished work.
const LEFTOVER_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];

/// A fault: the line it is in and what is wrong.
pub(super) type Fault = (usize, String);

/// Marker words, as whole words, in any text.
pub(super) fn markers(text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(word) = words.find(|word| MARKERS.contains(word)) {
            faults.push((
                index + 1,
                format!("{word} is left over; do it or write an issue"),
            ));
        }
    }
    faults
}

/// Everything that needs the file's structure.
pub(super) fn check(file: &Path, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES {
        faults.push((
            lines,
            format!("{lines} lines; split it below {MAX_FILE_LINES}"),
        ));
    }
    let parsed = match syn::parse_file(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            faults.push((
                error.span().start().line,
                format!("does not parse: {error}"),
            ));
            return faults;
        }
    };
    check_crate_doc(file, text, &mut faults);
    let mut walk = Walk {
        faults,
        test_depth: 0,
        pure_source: is_pure_source(file),
    };
    walk.visit_file(&parsed);
    walk.faults
}

fn check_crate_doc(file: &Path, text: &str, faults: &mut Vec<Fault>) {
    let name = file
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let in_src = file.parent().is_some_and(|p| p.ends_with("src"));
    let is_binary =
        (name == "main.rs" && in_src) || file.parent().is_some_and(|p| p.ends_with("src/bin"));
    let least = match (name == "lib.rs" && in_src, is_binary) {
        (true, _) => MIN_LIBRARY_DOC_LINES,
        (_, true) => 1,
        _ => return,
    };
    let doc = text.lines().take_while(|line| line.starts_with("//!"));
    let found = doc.filter(|line| line.len() > 4).count();
    if found < least {
        faults.push((1, format!("starts with {found} lines of //! documentation; at least {least}: what it owns, what it must not know, where to start reading")));
    }
}

/// Sources of a PURE crate that end up in the library, not its tests or benchmarks.
fn is_pure_source(file: &Path) -> bool {
    PURE.iter()
        .any(|(_, directory)| file.starts_with(Path::new(directory).join("src")))
        && !file
            .iter()
            .any(|part| part == "tests" || part == "tests.rs")
}

struct Walk {
    faults: Vec<Fault>,
    /// How many `#[cfg(test)]` items we are inside of.
    test_depth: usize,
    pure_source: bool,
}

impl Walk {
    fn function(&mut self, name: &syn::Ident, first: proc_macro2::Span, block: &syn::Block) {
        let (start, end) = (first.start().line, block.span().end().line);
        let lines = end - start + 1;
        if lines > MAX_FUNCTION_LINES {
            self.faults.push((
                start,
                format!("fn {name} has {lines} lines; split it below {MAX_FUNCTION_LINES}"),
            ));
        }
    }

    fn leftover(&mut self, name: &syn::Ident) {
        if LEFTOVER_MACROS.iter().any(|leftover| name == leftover) {
            self.faults
                .push((name.span().start().line, format!("{name}! is left over")));
        }
    }

    /// Macros are not parsed, so leftovers inside of one are found by their tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            match (token, tokens.get(index + 1)) {
                (TokenTree::Group(group), _) => self.tokens(group.stream()),
                (TokenTree::Ident(name), Some(TokenTree::Punct(p))) if p.as_char() == '!' => {
                    self.leftover(name)
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let test = is_test_only(item);
        self.test_depth += usize::from(test);
        visit::visit_item(self, item);
        self.test_depth -= usize::from(test);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.sig.span(), &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item.sig.span(), &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig.ident, item.sig.span(), block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        if let Some(last) = node.path.segments.last() {
            self.leftover(&last.ident);
        }
        self.tokens(node.tokens.clone());
        visit::visit_macro(self, node);
    }

    fn visit_attribute(&mut self, node: &'ast syn::Attribute) {
        let line = node.span().start().line;
        if node.path().is_ident("ignore") {
            self.faults
                .push((line, "#[ignore]: a test runs or goes".to_owned()));
        }
        let lifts = node.path().is_ident("allow") || node.path().is_ident("expect");
        if self.pure_source
            && self.test_depth == 0
            && lifts
            && tokens_of(node).contains("disallowed_")
        {
            self.faults.push((
                line,
                "lifts a ban of a PURE crate outside its tests".to_owned(),
            ));
        }
        visit::visit_attribute(self, node);
    }
}

fn tokens_of(attribute: &syn::Attribute) -> String {
    match &attribute.meta {
        syn::Meta::List(list) => list.tokens.to_string(),
        _ => String::new(),
    }
}

fn is_test_only(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg") && tokens_of(attribute) == "test")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(file: &str, text: &str) -> Vec<String> {
        check(Path::new(file), text)
            .into_iter()
            .map(|(line, what)| format!("{line}: {what}"))
            .collect()
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let body = "    let _ = 1;\n".repeat(MAX_FUNCTION_LINES);
        let long = format!("impl A {{\n  fn long() {{\n{body}  }}\n}}\n");
        assert_eq!(
            faults("a/src/b.rs", &long),
            ["2: fn long has 72 lines; split it below 70"]
        );
        let fits = format!(
            "fn fits() {{\n{}}}\n",
            "    let _ = 1;\n".repeat(MAX_FUNCTION_LINES - 2)
        );
        assert!(faults("a/src/b.rs", &fits).is_empty());
        let file = "// a\n".repeat(MAX_FILE_LINES + 1);
        assert_eq!(
            faults("a/src/b.rs", &file),
            ["801: 801 lines; split it below 800"]
        );
    }

    #[test]
    fn a_library_needs_more_documentation_than_a_binary() {
        assert_eq!(faults("a/src/lib.rs", "//! Name\n").len(), 1);
        assert_eq!(
            faults("a/src/lib.rs", "//! Owns.\n//! Not.\n//! Start.\n").len(),
            0
        );
        assert_eq!(faults("a/src/main.rs", "fn main() {}\n").len(), 1);
        assert_eq!(
            faults("a/src/main.rs", "//! The binary.\nfn main() {}\n").len(),
            0
        );
        assert_eq!(faults("a/src/other.rs", "fn other() {}\n").len(), 0);
    }

    #[test]
    fn leftovers_are_found_also_inside_macros() {
        let text = "fn a() {\n    todo!();\n    assert_eq!(1, dbg!(1));\n}\n#[ignore]\nfn b() {}\n";
        assert_eq!(
            faults("a/src/b.rs", text),
            [
                "2: todo! is left over",
                "3: dbg! is left over",
                "5: #[ignore]: a test runs or goes"
            ]
        );
        let marked = format!("# {} later\n# prefix{0}\n", MARKERS[1]);
        assert_eq!(markers(&marked).len(), 1);
    }

    #[test]
    fn a_pure_crate_lifts_no_ban_outside_its_tests() {
        let lift = "#[allow(clippy::disallowed_methods)]\nfn a() {}\n";
        assert_eq!(
            faults("policy/src/a.rs", lift),
            ["1: lifts a ban of a PURE crate outside its tests"]
        );
        let inner = "#![expect(clippy::disallowed_types)]\n";
        assert_eq!(faults("raft/src/a.rs", inner).len(), 1);
        let in_test =
            "#[cfg(test)]\nmod tests {\n#[allow(clippy::disallowed_methods)]\nfn a() {}\n}\n";
        assert!(faults("policy/src/a.rs", in_test).is_empty());
        assert!(faults("policy/tests/a.rs", lift).is_empty());
        assert!(faults("cli/src/a.rs", lift).is_empty());
    }
}
