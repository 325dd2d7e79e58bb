//! DNS over TCP: whole messages from the segments of one direction of a connection.
