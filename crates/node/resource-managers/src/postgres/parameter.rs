//! Parameters as text: the server reads them as whatever type its statement needs.

use crate::work::Parameter;
use bytes::{BufMut, BytesMut};
use std::error::Error;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

impl ToSql for Parameter {
    fn to_sql(
        &self,
        _kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Parameter::Boolean(value) => out.put_slice(if *value { b"true" } else { b"false" }),
            Parameter::Integer(value) => out.put_slice(value.to_string().as_bytes()),
            Parameter::Float(value) => out.put_slice(value.to_string().as_bytes()),
            Parameter::Text(value) => out.put_slice(value.as_bytes()),
            Parameter::Null { .. } => return Ok(IsNull::Yes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }

    fn encode_format(&self, _kind: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}
