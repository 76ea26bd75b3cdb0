//! Files of data: plain, or compressed with Zstandard, gzip or bzip2; CSV.

use super::TaskError;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The text of `path`, or of its compressed form beside.
pub(super) fn text(path: &Path) -> Result<String, TaskError> {
    let with = |ending: &str| PathBuf::from(format!("{}.{ending}", path.display()));
    let (zst, gz, bz2) = (with("zst"), with("gz"), with("bz2"));
    let mut text = String::new();
    let mut read = |path: &Path, open: fn(std::fs::File) -> std::io::Result<Box<dyn Read>>| {
        let opened = std::fs::File::open(path).and_then(open);
        let done = opened.and_then(|mut file| file.read_to_string(&mut text));
        done.map_err(|source| TaskError::Io { path: path.to_path_buf(), source })
    };
    if path.exists() {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("zst") => read(path, zstd_reader)?,
            _ => read(path, |file| Ok(Box::new(file)))?,
        };
    } else if zst.exists() {
        read(&zst, zstd_reader)?;
    } else if gz.exists() {
        read(&gz, |file| Ok(Box::new(flate2::read::MultiGzDecoder::new(file))))?;
    } else if bz2.exists() {
        read(&bz2, |file| Ok(Box::new(bzip2::read::MultiBzDecoder::new(file))))?;
    } else {
        return Err(TaskError::Missing { path: path.to_path_buf() });
    }
    Ok(text)
}

fn zstd_reader(file: std::fs::File) -> std::io::Result<Box<dyn Read>> {
    Ok(Box::new(zstd::Decoder::new(file)?))
}

/// Files of a folder with this ending, compressed ones included, by name.
pub(super) fn folder(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, TaskError> {
    if !folder.is_dir() {
        return Err(TaskError::Missing { path: folder.to_path_buf() });
    }
    let io = |source| TaskError::Io { path: folder.to_path_buf(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.trim_end_matches(".zst").ends_with(&format!(".{ending}")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Rows of CSV with the line each begins in, counted from 1: fields may be quoted and then hold commas, line breaks
/// and doubled quotes.
pub(super) fn csv(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut line, mut begun) = (false, 1, 1);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push((begun, std::mem::take(&mut row)));
                begun = line;
            }
            _ => field.push(c),
        }
    }
    if !row.is_empty() || !field.is_empty() {
        row.push(field);
        rows.push((begun, row));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_hold_commas_quotes_and_line_breaks() {
        let rows = csv("a,\"b, \"\"c\"\"\nd\",e\r\n1,2,3");
        let expected = [(1, vec!["a", "b, \"c\"\nd", "e"]), (3, vec!["1", "2", "3"])];
        assert_eq!(rows.len(), 2);
        for ((line, row), (expected_line, expected)) in rows.iter().zip(&expected) {
            assert_eq!((line, row), (expected_line, &expected.iter().map(|f| f.to_string()).collect()));
        }
    }
}
