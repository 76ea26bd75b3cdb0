//! The text of a module made ready: bounded, parsed, its operators turned into calls of guarded builtins.
//!
//! Operators run as builtins (`a * b` as `__mul(a, b)`) so that the graph, the limits on memory and the
//! location are at hand. `a + b` is replaced in the syntax tree by the interpreter's own rewriting; `a += b`,
//! `-a` are replaced in the text, whose positions are mapped back to what the author wrote.

use crate::error::RecipeError;
use crate::guarded::GROWING_METHODS;
use crate::nesting::check_nesting;
use starlark::codemap::Span;
use starlark::syntax::ast::{AssignOp, AstExpr, AstLiteral, AstNoPayload, AstStmt, Expr, FStringP, Stmt};
use starlark::syntax::{AstModule, Dialect, DialectTypes};
use std::collections::HashMap;

/// Longest text of a module, bytes.
pub const MAX_TEXT: usize = 1 << 19;

/// A module's text as run, and the way back to the text as written.
pub(crate) struct Rewritten {
    original: String,
    /// (offset in the original, bytes removed there, bytes inserted), in order.
    edits: Vec<(usize, usize, usize)>,
    /// Numbers in the text, and bytes of its strings, docstrings aside.
    pub(crate) literals: (usize, usize),
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
    let (rewritten_text, edits) = Edits::collect(file, text, ast.statement()).apply()?;
    let rewritten = Rewritten { original: text.to_string(), edits, literals: literals(ast.statement()) };
    let mut ast = parse(file, &rewritten_text)?;
    let names: HashMap<String, String> =
        OPERATORS.iter().map(|(op, name)| ((*op).to_string(), (*name).to_string())).collect();
    ast.replace_binary_operators(&names);
    Ok((ast, rewritten))
}

/// Numbers, and bytes of strings that are not statements of their own.
fn literals(statement: &AstStmt) -> (usize, usize) {
    let (mut numbers, mut strings) = (0, 0);
    statement.visit_expr(|expr| count_literals(expr, &mut numbers, &mut strings));
    (numbers, strings - docstrings(statement))
}

#[allow(clippy::wildcard_enum_match_arm)] // the interpreter's syntax tree, not a set of ours
fn count_literals(expr: &AstExpr, numbers: &mut usize, strings: &mut usize) {
    match &expr.node {
        Expr::Literal(AstLiteral::Int(_) | AstLiteral::Float(_)) => *numbers += 1,
        Expr::Literal(AstLiteral::String(text)) => *strings += text.node.len(),
        _ => {}
    }
    expr.visit_expr(|inner| count_literals(inner, numbers, strings));
}

#[allow(clippy::wildcard_enum_match_arm)] // the interpreter's syntax tree, not a set of ours
fn docstrings(statement: &AstStmt) -> usize {
    let own = match &statement.node {
        Stmt::Expression(expr) => match &expr.node {
            Expr::Literal(AstLiteral::String(text)) => text.node.len(),
            _ => 0,
        },
        _ => 0,
    };
    let mut below = 0;
    statement.visit_stmt(|inner| below += docstrings(inner));
    own + below
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
        return Err(RecipeError::new(file, format!("the text has more than {MAX_TEXT} bytes")));
    }
    if let Some(at) = text.bytes().position(|b| b == 0) {
        let line = text[..at].matches('\n').count() as u32 + 1;
        return Err(RecipeError::new(file, "the text holds a zero byte: this is not a recipe").at(line));
    }
    check_nesting(file, text)
}

/// Changes of a text: at a place, so many bytes give way to a string.
struct Edits<'a> {
    file: &'a str,
    text: &'a str,
    list: Vec<(usize, usize, String)>,
}

impl<'a> Edits<'a> {
    fn collect(file: &'a str, text: &'a str, statement: &AstStmt) -> Edits<'a> {
        let mut edits = Edits { file, text, list: Vec::new() };
        edits.statement(statement);
        statement.visit_expr(|expr| edits.expression(expr));
        edits.list.sort_by_key(|(at, _, _)| *at);
        edits
    }

    fn push(&mut self, at: usize, removed: usize, inserted: String) {
        // Lines stay where they are: a removed line break comes back inside the call that takes its place.
        let breaks = self.text[at..at + removed].matches('\n').count();
        self.list.push((at, removed, format!("{inserted}{}", "\n".repeat(breaks))));
    }

    fn statement(&mut self, statement: &AstStmt) {
        if let Stmt::AssignModify(target, op, rhs) = &statement.node {
            let (symbol, name) = assign_name(*op);
            let (begin, end) = bytes(target.span);
            // Only spaces and a closing parenthesis can stand between the target and its operator.
            if let Some(at) = self.text[end..].find(symbol) {
                let target_text = &self.text[begin..end];
                self.push(end + at, symbol.len(), format!("= {name}({target_text}, ("));
                let close = bytes(statement.span).1.max(bytes(rhs.span).1);
                self.push(close, 0, "))".to_string());
            }
        }
        statement.visit_stmt(|inner| self.statement(inner));
    }

    #[allow(clippy::wildcard_enum_match_arm)] // the interpreter's syntax tree, not a set of ours
    fn expression(&mut self, expr: &AstExpr) {
        let (begin, end) = bytes(expr.span);
        match &expr.node {
            Expr::Minus(operand)
                if !matches!(operand.node, Expr::Literal(_)) && self.text[begin..].starts_with('-') =>
            {
                self.push(begin, 1, "__neg(".to_string());
                self.push(end, 0, ")".to_string());
            }
            Expr::FString(parts) => self.format_string(begin, end, parts),
            Expr::Call(callee, _) => {
                if let Expr::Dot(receiver, name) = &callee.node
                    && is_growing(&name.node)
                {
                    self.method_call(receiver, &name.node, bytes(callee.span).1);
                    self.expression(receiver);
                    self.arguments(expr);
                    return;
                }
            }
            Expr::Dot(receiver, name) if is_growing(&name.node) => {
                if let Some((begin, receiver_end)) = self.with_parentheses(receiver) {
                    self.push(begin, 0, format!("__attr(\"{}\", ", name.node));
                    self.push(receiver_end, end - receiver_end, ")".to_string());
                }
            }
            _ => {}
        }
        expr.visit_expr(|inner| self.expression(inner));
    }

    /// What stands between the parentheses of a call, the callee left out.
    fn arguments(&mut self, call: &AstExpr) {
        if let Expr::Call(_, args) = &call.node {
            for arg in &args.args {
                self.expression(arg.node.expr());
            }
        }
    }

    /// `x.join(y)` as `__method("join", x, y)`; `dot_end` is where the name of the method ends.
    fn method_call(&mut self, receiver: &AstExpr, name: &str, dot_end: usize) {
        let Some((begin, end)) = self.with_parentheses(receiver) else { return };
        let Some(open) = self.text[dot_end..].find('(') else { return };
        self.push(begin, 0, format!("__method(\"{name}\", "));
        self.push(end, dot_end + open + 1 - end, ", ".to_string());
    }

    /// `f"a{b}"` as `__method("format", "a{}", b)`.
    fn format_string(&mut self, begin: usize, end: usize, parts: &FStringP<AstNoPayload>) {
        let mut call = format!("__method(\"format\", {}", quoted(&parts.format.node));
        for part in &parts.expressions {
            let (from, to) = bytes(part.span);
            call.push_str(", ");
            call.push_str(if let Expr::Identifier(ident) = &part.node {
                &ident.node.ident
            } else {
                &self.text[from..to]
            });
        }
        self.push(begin, end - begin, call);
        self.list.push((end, 0, ")".to_string()));
    }

    /// The span of an expression with the parentheses around it, which the syntax tree leaves out.
    fn with_parentheses(&self, expr: &AstExpr) -> Option<(usize, usize)> {
        let (mut begin, mut end) = bytes(expr.span);
        loop {
            let rest = &self.text[end..];
            let after = rest.len() - rest.trim_start().len();
            if !rest[after..].starts_with(')') {
                // A comment in between: the expression stays as it is.
                return rest[after..].starts_with('.').then_some((begin, end));
            }
            let before = self.text[..begin].trim_end();
            if !before.ends_with('(') {
                return None;
            }
            (begin, end) = (before.len() - 1, end + after + 1);
        }
    }

    /// The text with its changes, and each change as offset, bytes removed, bytes inserted.
    fn apply(self) -> Result<(String, Vec<(usize, usize, usize)>), RecipeError> {
        let mut out = String::with_capacity(self.text.len() + 16 * self.list.len());
        let mut done = 0;
        let mut summary = Vec::with_capacity(self.list.len());
        for (at, removed, inserted) in self.list {
            let Some(kept) = self.text.get(done..at) else {
                let line = self.text[..at].matches('\n').count() as u32 + 1;
                return Err(RecipeError::new(self.file, "this line cannot be read")
                    .at(line)
                    .hint("name the parts of the expression, one on each line"));
            };
            out.push_str(kept);
            out.push_str(&inserted);
            done = at + removed;
            summary.push((at, removed, inserted.len()));
        }
        out.push_str(&self.text[done..]);
        Ok((out, summary))
    }
}

fn is_growing(name: &str) -> bool {
    GROWING_METHODS.contains(&name)
}

/// A string literal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
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
