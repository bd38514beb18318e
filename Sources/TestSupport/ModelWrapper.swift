package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// A model that wraps another one and is it in everything that it does not implement itself.
package protocol ModelWrapper: Model {
    var model: any Model { get }
}

extension ModelWrapper {
    package var vocabularySize: Int { model.vocabularySize }
    package var description: ModelDescription { model.description }
    package var canDraft: Bool { model.canDraft }
    package var draftStateWidth: Int { model.draftStateWidth }

    package func cacheFormat(_ type: CacheType, pageSize: Int) -> CacheFormat {
        model.cacheFormat(type, pageSize: pageSize)
    }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        try model.forward(step, seat, into: hidden)
    }

    package func draft(_ step: Step, _ seat: Seat, states: View, continues: Bool) throws(GroupFailure) {
        try model.draft(step, seat, states: states, continues: continues)
    }

    package func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        model.logits(hidden, vocabulary: vocabulary, seat, into: logits)
    }

    package func draftLogits(_ states: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        model.draftLogits(states, vocabulary: vocabulary, seat, into: logits)
    }
}
