"""What a trained model has to beat, each fitted on the same data: `ngram` on its tokens, `linear` on its sides."""
