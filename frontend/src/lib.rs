//! From Dockerfile text to a build graph: grammar, AST, words, stages, lint, lowering
