//! Generated gRPC and LLB messages, nothing else
