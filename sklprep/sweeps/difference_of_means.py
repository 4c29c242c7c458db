"""The difference-of-means (mass-mean) probe: scikit-learn's nearest centroid."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestCentroid

from sklprep.transformers.directions import read_centroids


class DifferenceOfMeans(NearestCentroid):
    """A `NearestCentroid` whose `decision_function` agrees with its predictions.

    `NearestCentroid` predicts the class of the nearest mean, but its `decision_function` divides by
    the standard deviation within classes, so a ROC curve would be that of another probe.

    Attributes
    ----------
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        The difference of the means of two classes; of more, their means.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        With two classes, the decision for a row halfway between the means is 0.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[-1.0, 0.0], [1.0, 2.0], [3.0, 0.0], [5.0, 2.0]]), [0, 0, 1, 1]
    >>> probe = DifferenceOfMeans().fit(X, y)
    >>> probe.coef_
    array([[4., 0.]])
    >>> probe.decision_function([[2.0, 9.0], [3.0, 0.0]])
    array([0., 4.])
    """

    def fit(self, X: Any, y: Any) -> Self:
        super().fit(X, y)
        self.coef_, self.intercept_ = read_centroids(self)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        decisions = X @ self.coef_.T + self.intercept_
        return decisions[:, 0] if len(self.coef_) == 1 else decisions
