//! The text of a module made ready: bounded, parsed, its operators turned into calls of guarded builtins.
//!
//! Operators run as builtins (`a * b` as `__mul(a, b)`) so that the graph, the limits on memory and the
//! location are at hand. `a + b` is replaced in the syntax tree by the interpreter's own rewriting; `a += b`,
//! `-a` are replaced in the text, whose positions are mapped back to what the author wrote.

use crate::error::RecipeError;
use starlark::codemap::Span;
use starlark::syntax::ast::{AssignOp, AstExpr, AstStmt, Expr, Stmt};
use starlark::syntax::{AstModule, Dialect, DialectTypes};
use std::collections::HashMap;

/// Longest text of a module, bytes.
pub(crate) const MAX_TEXT: usize = 1 << 19;

/// A module's text as run, and the way back to the text as written.
pub(crate) struct Rewritten {
    original: String,
    /// (offset in the original, bytes removed there, bytes inserted), in order.
    edits: Vec<(usize, usize, usize)>,
}

impl Rewritten {
    /// 1-based line and column in the original of a byte offset in the rewritten text.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let mut shift = 0isize;
        let mut at = offset;
        for (begin, removed, inserted) in &self.edits {
            let begin_new = (*begin as isize + shift) as usize;
            if offset < begin_new + inserted {
                at = if offset < begin_new { (offset as isize - shift) as usize } else { *begin };
                shift = 0;
                break;
            }
            shift += *inserted as isize - *removed as isize;
        }
        if shift != 0 {
            at = (offset as isize - shift) as usize;
        }
        let before = &self.original[..floor_char(&self.original, at)];
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
        (line as u32, column as u32)
    }
}

fn floor_char(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The dialect: Starlark with f-strings, keyword-only arguments and statements at the top level.
fn dialect() -> Dialect {
    Dialect {
        enable_keyword_only_arguments: true,
        enable_types: DialectTypes::Disable,
        enable_load_reexport: false,
        enable_top_level_stmt: true,
        enable_f_strings: true,
        ..Dialect::Standard
    }
}

/// Operators that become calls, with the builtin that stands for each.
pub(crate) const OPERATORS: [(&str, &str); 20] = [
    ("+", "__add"),
    ("-", "__sub"),
    ("*", "__mul"),
    ("/", "__div"),
    ("//", "__floordiv"),
    ("%", "__mod"),
    ("==", "__eq"),
    ("!=", "__ne"),
    ("<", "__lt"),
    ("<=", "__le"),
    (">", "__gt"),
    (">=", "__ge"),
    ("in", "__in"),
    ("not in", "__not_in"),
    ("&", "__and"),
    ("|", "__or"),
    ("^", "__xor"),
    ("<<", "__shl"),
    (">>", "__shr"),
    ("unary -", "__neg"),
];

/// Parses and rewrites a module.
pub(crate) fn prepare(file: &str, text: &str) -> Result<(AstModule, Rewritten), RecipeError> {
    check_text(file, text)?;
    let ast = parse(file, text)?;
    let edits = Edits::collect(text, ast.statement());
    let (rewritten_text, edits) = edits.apply(text);
    let rewritten = Rewritten { original: text.to_string(), edits };
    let mut ast = parse(file, &rewritten_text)?;
    let names: HashMap<String, String> =
        OPERATORS.iter().map(|(op, name)| ((*op).to_string(), (*name).to_string())).collect();
    ast.replace_binary_operators(&names);
    Ok((ast, rewritten))
}

fn parse(file: &str, text: &str) -> Result<AstModule, RecipeError> {
    AstModule::parse(file, text.to_string(), &dialect()).map_err(|error| {
        let message = error.without_diagnostic().to_string();
        let mut out = RecipeError::new(file, message);
        if let Some(place) = error.span() {
            let begin = place.resolve_span().begin;
            (out.line, out.column) = (Some(begin.line as u32 + 1), Some(begin.column as u32 + 1));
        }
        out
    })
}

fn check_text(file: &str, text: &str) -> Result<(), RecipeError> {
    if text.trim().is_empty() {
        return Err(RecipeError::new(file, "the recipe is empty")
            .hint("start from a shipped recipe such as tiny.star"));
    }
    if text.len() > MAX_TEXT {
        return Err(RecipeError::new(
            file,
            format!("the text has {} bytes, more than {MAX_TEXT}", text.len()),
        ));
    }
    if let Some(at) = text.bytes().position(|b| b == 0) {
        let line = text[..at].matches('\n').count() as u32 + 1;
        return Err(RecipeError::new(file, "the text holds a zero byte: this is not a recipe").at(line));
    }
    Ok(())
}

/// Changes of a text: at a place, so many bytes give way to a string.
struct Edits {
    list: Vec<(usize, usize, String)>,
}

impl Edits {
    fn collect(text: &str, statement: &AstStmt) -> Edits {
        let mut edits = Edits { list: Vec::new() };
        edits.statement(text, statement);
        statement.visit_expr(|expr| edits.expression(text, expr));
        edits.list.sort_by_key(|(at, _, _)| *at);
        edits
    }

    fn statement(&mut self, text: &str, statement: &AstStmt) {
        if let Stmt::AssignModify(target, op, rhs) = &statement.node {
            let (symbol, name) = assign_name(*op);
            let (begin, end) = bytes(target.span);
            // Only spaces and a closing parenthesis can stand between the target and its operator.
            if let Some(at) = text[end..].find(symbol) {
                let target_text = text[begin..end].to_string();
                self.list.push((end + at, symbol.len(), format!("= {name}({target_text}, (")));
                let close = bytes(statement.span).1.max(bytes(rhs.span).1);
                self.list.push((close, 0, "))".to_string()));
            }
        }
        statement.visit_stmt(|inner| self.statement(text, inner));
    }

    fn expression(&mut self, text: &str, expr: &AstExpr) {
        if let Expr::Minus(operand) = &expr.node
            && !matches!(operand.node, Expr::Literal(_))
        {
            let (begin, end) = bytes(expr.span);
            if text.as_bytes().get(begin) == Some(&b'-') {
                self.list.push((begin, 1, "__neg(".to_string()));
                self.list.push((end, 0, ")".to_string()));
            }
        }
        expr.visit_expr(|inner| self.expression(text, inner));
    }

    fn apply(self, text: &str) -> (String, Vec<(usize, usize, usize)>) {
        let mut out = String::with_capacity(text.len() + 16 * self.list.len());
        let mut done = 0;
        let mut summary = Vec::with_capacity(self.list.len());
        for (at, removed, inserted) in self.list {
            out.push_str(&text[done..at]);
            out.push_str(&inserted);
            done = at + removed;
            summary.push((at, removed, inserted.len()));
        }
        out.push_str(&text[done..]);
        (out, summary)
    }
}

fn bytes(span: Span) -> (usize, usize) {
    (span.begin().get() as usize, span.end().get() as usize)
}

fn assign_name(op: AssignOp) -> (&'static str, &'static str) {
    match op {
        AssignOp::Add => ("+=", "__iadd"),
        AssignOp::Subtract => ("-=", "__sub"),
        AssignOp::Multiply => ("*=", "__mul"),
        AssignOp::Divide => ("/=", "__div"),
        AssignOp::FloorDivide => ("//=", "__floordiv"),
        AssignOp::Percent => ("%=", "__mod"),
        AssignOp::BitAnd => ("&=", "__and"),
        AssignOp::BitOr => ("|=", "__or"),
        AssignOp::BitXor => ("^=", "__xor"),
        AssignOp::LeftShift => ("<<=", "__shl"),
        AssignOp::RightShift => (">>=", "__shr"),
    }
}
