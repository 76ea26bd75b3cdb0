//! The column `text` of a Parquet file, a row a document. Nulls and empty texts are passed over.

use super::{Each, OnBytes};
use crate::DataError;
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs::File;
use std::path::Path;

const ROWS_AT_ONCE: usize = 256;

pub(super) fn read(path: &Path, each: Each<'_>, on_bytes: OnBytes<'_>) -> Result<(), DataError> {
    let damaged = |row: u64| move |source| DataError::Parquet { path: path.to_path_buf(), row, source };
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let size = file.metadata().map_err(DataError::io("read", path))?.len();
    if size == 0 {
        return Err(DataError::Empty { path: path.to_path_buf() });
    }
    let reader = SerializedFileReader::new(file).map_err(damaged(0))?;
    let column = text_column(&reader, path)?;
    let total_rows = reader.metadata().file_metadata().num_rows().max(1) as u64;
    let mut row = 0;
    let mut empty = true;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged(row))?;
        let column = group.get_column_reader(column).map_err(damaged(row))?;
        let ColumnReader::ByteArrayColumnReader(mut column) = column else {
            unreachable!("the type of the column was checked")
        };
        loop {
            let (rows, values) = next_values(&mut column).map_err(damaged(row))?;
            if rows == 0 {
                break;
            }
            for value in values {
                let text = std::str::from_utf8(value.data())
                    .map_err(|_| DataError::NotUtf8 { path: path.to_path_buf(), line: row + 1 })?;
                if !text.is_empty() {
                    empty = false;
                    each(text)?;
                }
            }
            row += rows as u64;
            on_bytes((u128::from(size) * u128::from(row) / u128::from(total_rows)) as u64);
        }
    }
    if empty { Err(DataError::Empty { path: path.to_path_buf() }) } else { Ok(()) }
}

fn text_column(reader: &SerializedFileReader<File>, path: &Path) -> Result<usize, DataError> {
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let is_text = |column: &parquet::schema::types::ColumnDescPtr| {
        column.path().string() == "text"
            && column.physical_type() == Type::BYTE_ARRAY
            && column.max_rep_level() == 0
    };
    columns.iter().position(is_text).ok_or_else(|| {
        let names: Vec<String> = columns.iter().map(|column| column.path().string()).collect();
        DataError::NoTextColumn { path: path.to_path_buf(), found: names.join(", ") }
    })
}

/// Rows read, and those of their values that are not null; no rows at the end of the row group.
fn next_values(
    column: &mut ColumnReaderImpl<ByteArrayType>,
) -> Result<(usize, Vec<ByteArray>), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let (rows, _, _) = column.read_records(ROWS_AT_ONCE, Some(&mut levels), None, &mut values)?;
    Ok((rows, values))
}
